{{- /* Root, since the socket is root's; but no more of it than that. */ -}}
{{- define "secrets-store-csi-driver.sidecarSecurity" -}}
allowPrivilegeEscalation: false
capabilities:
  drop: [ALL]
readOnlyRootFilesystem: true
runAsUser: 0
runAsGroup: 0
{{- end -}}

{{- define "secrets-store-csi-driver.registrar" -}}
{{- $linux := .Values.linux -}}
{{- $path := printf "--kubelet-registration-path=%s/plugins/csi-secrets-store/csi.sock" (trimSuffix "/" $linux.kubeletRootDir) -}}
- name: node-driver-registrar
  image: {{ include "secrets-store-csi-driver.reference" $linux.registrarImage | quote }}
  imagePullPolicy: {{ $linux.registrarImage.pullPolicy | default "IfNotPresent" }}
  args:
  - --v={{ $linux.registrar.logVerbosity }}
  - --csi-address=/csi/csi.sock
  - {{ $path }}
  livenessProbe:
    exec:
      command:
      - /csi-node-driver-registrar
      - {{ $path }}
      - --mode=kubelet-registration-probe
    initialDelaySeconds: 30
    timeoutSeconds: 15
  securityContext:
    {{- include "secrets-store-csi-driver.sidecarSecurity" . | nindent 4 }}
  {{- with $linux.registrar.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: plugin-dir
    mountPath: /csi
  - name: registration-dir
    mountPath: /registration
{{- end -}}

{{- define "secrets-store-csi-driver.prober" -}}
{{- $linux := .Values.linux -}}
- name: liveness-probe
  image: {{ include "secrets-store-csi-driver.reference" $linux.livenessProbeImage | quote }}
  imagePullPolicy: {{ $linux.livenessProbeImage.pullPolicy | default "IfNotPresent" }}
  args:
  - --csi-address=/csi/csi.sock
  - --probe-timeout=3s
  - --http-endpoint=0.0.0.0:{{ .Values.livenessProbe.port }}
  - -v={{ .Values.livenessProbe.logLevel }}
  securityContext:
    {{- include "secrets-store-csi-driver.sidecarSecurity" . | nindent 4 }}
  {{- with ($linux.livenessProbe).resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: plugin-dir
    mountPath: /csi
{{- end -}}
