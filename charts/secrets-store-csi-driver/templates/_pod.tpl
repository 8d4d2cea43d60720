{{- /* The pod of a node: the driver, and with linux.sidecars the two that it otherwise does the work of. */ -}}
{{- define "secrets-store-csi-driver.pod" -}}
{{- $linux := .Values.linux -}}
{{- $root := trimSuffix "/" $linux.kubeletRootDir -}}
{{- $sidecars := include "secrets-store-csi-driver.isTrue" $linux.sidecars -}}
{{- $hostNetwork := include "secrets-store-csi-driver.isTrue" $linux.hostNetwork -}}
serviceAccountName: {{ include "secrets-store-csi-driver.serviceAccountName" . | quote }}
automountServiceAccountToken: {{ include "secrets-store-csi-driver.isNotFalse" .Values.automountServiceAccountToken | default "false" }}
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "secrets-store-csi-driver.priorityClassName" . }}
priorityClassName: {{ . }}
{{- end }}
{{- if $hostNetwork }}
hostNetwork: true
{{- end }}
{{- with $linux.dnsPolicy | default (ternary "ClusterFirstWithHostNet" "" (eq $hostNetwork "true")) }}
dnsPolicy: {{ . }}
{{- end }}
securityContext:
  {{- mergeOverwrite (dict "seccompProfile" (dict "type" "RuntimeDefault")) (deepCopy ($linux.podSecurityContext | default dict)) | toYaml | nindent 2 }}
{{- with $linux.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector:
  {{- merge (deepCopy ($linux.nodeSelector | default dict)) (dict "kubernetes.io/os" "linux") | include "secrets-store-csi-driver.strings" | nindent 2 }}
{{- with $linux.tolerations }}
tolerations:
  {{- include "secrets-store-csi-driver.stringValues" . | nindent 2 }}
{{- end }}
containers:
{{- if $sidecars }}
{{ include "secrets-store-csi-driver.registrar" . }}
{{- end }}
{{ include "secrets-store-csi-driver.driver" . }}
{{- if $sidecars }}
{{ include "secrets-store-csi-driver.prober" . }}
{{- end }}
volumes:
- name: mountpoint-dir
  hostPath:
    path: {{ printf "%s/pods" $root | quote }}
    type: DirectoryOrCreate
- name: registration-dir
  hostPath:
    path: {{ printf "%s/plugins_registry/" $root | quote }}
    type: Directory
- name: plugin-dir
  hostPath:
    path: {{ printf "%s/plugins/csi-secrets-store/" $root | quote }}
    type: DirectoryOrCreate
- name: providers-dir
  hostPath:
    path: {{ $linux.providersDir | quote }}
    type: DirectoryOrCreate
{{- range $i, $dir := include "secrets-store-csi-driver.additionalProvidersDirs" . | fromJsonArray }}
- name: providers-dir-{{ $i }}
  hostPath:
    path: {{ $dir | quote }}
    type: DirectoryOrCreate
{{- end }}
{{- with $linux.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- /* A folder can be mounted once only. */ -}}
{{- define "secrets-store-csi-driver.additionalProvidersDirs" -}}
{{- without (.Values.linux.additionalProvidersDirs | default list | uniq) .Values.linux.providersDir | toJson -}}
{{- end -}}

{{- define "secrets-store-csi-driver.driver" -}}
{{- $linux := .Values.linux -}}
{{- $root := trimSuffix "/" $linux.kubeletRootDir -}}
{{- $sidecars := include "secrets-store-csi-driver.isTrue" $linux.sidecars -}}
{{- $metricsPort := include "secrets-store-csi-driver.metricsPort" . -}}
- name: secrets-store
  image: {{ include "secrets-store-csi-driver.image" . | quote }}
  imagePullPolicy: {{ ($linux.image).pullPolicy | default "IfNotPresent" }}
  args:
  {{- range include "secrets-store-csi-driver.args" . | fromJsonArray }}
  - {{ . | quote }}
  {{- end }}
  env:
  {{- with $linux.env }}
  {{- include "secrets-store-csi-driver.stringValues" . | nindent 2 }}
  {{- end }}
  - name: CSI_ENDPOINT
    value: unix:///csi/csi.sock
  - name: KUBE_NODE_NAME
    valueFrom:
      fieldRef:
        fieldPath: spec.nodeName
  securityContext:
    {{- mergeOverwrite (dict "privileged" true "readOnlyRootFilesystem" true "runAsUser" 0 "runAsGroup" 0) (deepCopy ($linux.securityContext | default dict)) | toYaml | nindent 4 }}
  ports:
  - name: healthz
    containerPort: {{ .Values.livenessProbe.port }}
    protocol: TCP
  {{- with $metricsPort }}
  - name: metrics
    containerPort: {{ . }}
    protocol: TCP
  {{- end }}
  # The driver answers at once, unless it waits for the one before it to end.
  startupProbe:
    httpGet:
      path: /healthz
      port: healthz
    periodSeconds: 2
    timeoutSeconds: 5
    failureThreshold: 150
  livenessProbe:
    httpGet:
      path: /healthz
      port: healthz
    periodSeconds: 15
    timeoutSeconds: 10
    failureThreshold: 5
  {{- if not $sidecars }}
  readinessProbe:
    httpGet:
      path: /readyz
      port: healthz
    periodSeconds: 5
    timeoutSeconds: 5
    failureThreshold: 3
  {{- end }}
  {{- with ($linux.driver).resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: plugin-dir
    mountPath: /csi
  {{- if not $sidecars }}
  - name: registration-dir
    mountPath: /registration
  {{- end }}
  - name: mountpoint-dir
    mountPath: {{ printf "%s/pods" $root | quote }}
    mountPropagation: Bidirectional
  - name: providers-dir
    mountPath: {{ $linux.providersDir | quote }}
    readOnly: true
  {{- range $i, $dir := include "secrets-store-csi-driver.additionalProvidersDirs" . | fromJsonArray }}
  - name: providers-dir-{{ $i }}
    mountPath: {{ $dir | quote }}
    readOnly: true
  {{- end }}
  {{- with $linux.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
{{- end -}}

{{- /* The driver's arguments as a JSON array. */ -}}
{{- define "secrets-store-csi-driver.args" -}}
{{- $v := .Values -}}
{{- $args := list "--endpoint=$(CSI_ENDPOINT)" "--nodeid=$(KUBE_NODE_NAME)" (printf "--provider-volume=%s" $v.linux.providersDir)
  (printf "--additional-provider-volume-paths=%s" (include "secrets-store-csi-driver.additionalProvidersDirs" . | fromJsonArray | join ",")) -}}
{{- if ne (toString ($v.logVerbosity | default 0)) "0" }}{{ $args = append $args (printf "-v=%d" (int64 $v.logVerbosity)) }}{{ end -}}
{{- if include "secrets-store-csi-driver.isTrue" $v.logFormatJSON }}{{ $args = append $args "--log-format-json=true" }}{{ end -}}
{{- if include "secrets-store-csi-driver.isTrue" $v.enableSecretRotation }}{{ $args = append $args "--enable-secret-rotation=true" }}{{ end -}}
{{- with $v.rotationPollInterval }}{{ $args = append $args (printf "--rotation-poll-interval=%s" .) }}{{ end -}}
{{- if include "secrets-store-csi-driver.isTrue" $v.providerHealthCheck }}{{ $args = append $args "--provider-health-check=true" }}{{ end -}}
{{- with $v.providerHealthCheckInterval }}{{ $args = append $args (printf "--provider-health-check-interval=%s" .) }}{{ end -}}
{{- with $v.maxCallRecvMsgSize }}{{ $args = append $args (printf "--max-call-recv-msg-size=%d" (int64 .)) }}{{ end -}}
{{- $args = append $args (printf "--metrics-addr=%s" (include "secrets-store-csi-driver.metricsAddr" .)) -}}
{{- with $v.builtinProviders }}{{ $args = append $args (printf "--builtin-providers=%s" (join "," .)) }}{{ end -}}
{{- with $v.serviceAccountAnnotations }}{{ $args = append $args (printf "--service-account-annotations=%s" (join "," .)) }}{{ end -}}
{{- if not (include "secrets-store-csi-driver.isTrue" $v.linux.sidecars) -}}
  {{- $args = concat $args (list "--registration-dir=/registration"
    (printf "--kubelet-registration-path=%s/plugins/csi-secrets-store/csi.sock" (trimSuffix "/" $v.linux.kubeletRootDir))
    (printf "--health-addr=:%d" (int64 $v.livenessProbe.port))) -}}
{{- end -}}
{{- concat $args ($v.linux.extraArgs | default list) | toJson -}}
{{- end -}}
