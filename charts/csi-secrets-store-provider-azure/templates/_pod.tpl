{{- /* The pod of a node. */ -}}
{{- define "keymount-azure.pod" -}}
{{- $linux := .Values.linux -}}
{{- $metricsPort := include "keymount-azure.metricsPort" . -}}
serviceAccountName: {{ include "keymount-azure.serviceAccountName" . | quote }}
# The provider asks the API server nothing.
automountServiceAccountToken: false
{{- with .Values.imagePullSecrets }}
imagePullSecrets:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with include "keymount-azure.priorityClassName" . }}
priorityClassName: {{ . }}
{{- end }}
{{- if include "keymount-azure.isNotFalse" $linux.hostNetwork }}
hostNetwork: true
{{- end }}
{{- with $linux.dnsPolicy }}
dnsPolicy: {{ . }}
{{- end }}
securityContext:
  {{- mergeOverwrite (dict "seccompProfile" (dict "type" "RuntimeDefault")) (deepCopy ($linux.podSecurityContext | default dict)) | toYaml | nindent 2 }}
{{- with $linux.affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
nodeSelector:
  {{- merge (deepCopy ($linux.nodeSelector | default dict)) (dict "kubernetes.io/os" "linux") | include "keymount-azure.strings" | nindent 2 }}
{{- with $linux.tolerations }}
tolerations:
  {{- include "keymount-azure.stringValues" . | nindent 2 }}
{{- end }}
containers:
- name: provider-azure-installer
  image: {{ include "keymount-azure.image" . | quote }}
  imagePullPolicy: {{ ($linux.image).pullPolicy | default "IfNotPresent" }}
  args:
  {{- include "keymount-azure.args" . | fromJsonArray | toYaml | nindent 2 }}
  {{- with $linux.env }}
  env:
  {{- include "keymount-azure.stringValues" . | nindent 2 }}
  {{- end }}
  securityContext:
    {{- include "keymount-azure.securityContext" . | nindent 4 }}
  ports:
  - name: healthz
    containerPort: {{ $linux.healthzPort }}
    protocol: TCP
  {{- if ne $metricsPort "0" }}
  - name: metrics
    containerPort: {{ $metricsPort }}
    protocol: TCP
  {{- end }}
  startupProbe:
    {{- include "keymount-azure.probe" $linux.healthzPath | nindent 4 }}
    periodSeconds: 2
    failureThreshold: 30
  livenessProbe:
    {{- include "keymount-azure.probe" $linux.healthzPath | nindent 4 }}
    periodSeconds: 30
    failureThreshold: 3
  readinessProbe:
    {{- include "keymount-azure.probe" "/readyz" | nindent 4 }}
    periodSeconds: 5
    failureThreshold: 3
  {{- with $linux.resources }}
  resources:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  volumeMounts:
  - name: provider-vol
    mountPath: /provider
  {{- with $linux.volumeMounts }}
  {{- toYaml . | nindent 2 }}
  {{- end }}
volumes:
- name: provider-vol
  hostPath:
    path: {{ $linux.providersDir | quote }}
    type: DirectoryOrCreate
{{- with $linux.volumes }}
{{ toYaml . }}
{{- end }}
{{- end -}}

{{- define "keymount-azure.probe" -}}
httpGet:
  path: {{ . | quote }}
  port: healthz
timeoutSeconds: 10
{{- end -}}

{{- /* Root, since the folder of the sockets is root's; but no more of it than that. The API server refuses allowPrivilegeEscalation: false for a
       privileged container. */ -}}
{{- define "keymount-azure.securityContext" -}}
{{- $context := dict "readOnlyRootFilesystem" true "runAsUser" 0 "runAsGroup" 0 "capabilities" (dict "drop" (list "ALL")) -}}
{{- $own := deepCopy (.Values.linux.securityContext | default dict) -}}
{{- if include "keymount-azure.isTrue" .Values.linux.privileged }}{{ $_ := set $context "privileged" true -}}
{{- else if not (include "keymount-azure.isTrue" $own.privileged) }}{{ $_ := set $context "allowPrivilegeEscalation" false }}{{ end -}}
{{- mergeOverwrite $context $own | toYaml -}}
{{- end -}}

{{- /* The provider's arguments as a JSON array. */ -}}
{{- define "keymount-azure.args" -}}
{{- $v := .Values -}}
{{- if eq $v.linux.healthzPath "/readyz" }}{{ fail "linux.healthzPath=/readyz: this is where the readiness probe is answered. Give another path" }}{{ end -}}
{{- $args := list "--endpoint=unix:///provider/azure.sock"
  (printf "--construct-pem-chain=%s" (include "keymount-azure.isNotFalse" $v.constructPEMChain | default "false")) -}}
{{- if include "keymount-azure.isTrue" $v.writeCertAndKeyInSeparateFiles }}{{ $args = append $args "--write-cert-and-key-in-separate-files=true" }}{{ end -}}
{{- with $v.cloudName }}{{ $args = append $args (printf "--cloud-name=%s" .) }}{{ end -}}
{{- with $v.linux.customUserAgent }}{{ $args = append $args (printf "--custom-user-agent=%s" .) }}{{ end -}}
{{- if ne (toString ($v.logVerbosity | default 0)) "0" }}{{ $args = append $args (printf "-v=%d" (int64 $v.logVerbosity)) }}{{ end -}}
{{- if include "keymount-azure.isTrue" $v.logFormatJSON }}{{ $args = append $args "--log-format-json=true" }}{{ end -}}
{{- $args = concat $args (list
  (printf "--healthz-port=%d" (int64 $v.linux.healthzPort))
  (printf "--healthz-path=%s" $v.linux.healthzPath)
  (printf "--healthz-timeout=%s" $v.linux.healthzTimeout)
  (printf "--prometheus-port=%s" (include "keymount-azure.metricsPort" .))) -}}
{{- concat $args ($v.linux.extraArgs | default list) | toJson -}}
{{- end -}}
