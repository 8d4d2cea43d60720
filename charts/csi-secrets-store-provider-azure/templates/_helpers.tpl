{{- /* Values may come from upstream's chart by --reuse-values: none of those that only this chart has may be taken for given. */ -}}

{{- define "keymount-azure.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "keymount-azure.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name }}{{ $full = .Release.Name }}{{ end -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The selector of upstream's DaemonSet: it cannot be changed, and an upgrade must find its pods. */ -}}
{{- define "keymount-azure.selector" -}}
app: {{ include "keymount-azure.name" . | quote }}
{{- end -}}

{{- define "keymount-azure.labels" -}}
app: {{ include "keymount-azure.name" . | quote }}
app.kubernetes.io/instance: {{ .Release.Name | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service | quote }}
app.kubernetes.io/name: {{ include "keymount-azure.name" . | quote }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" | quote }}
{{- end -}}

{{- /* Without the chart's version and the like: pods must not be replaced where nothing of theirs changed. */ -}}
{{- define "keymount-azure.podLabels" -}}
{{- $labels := dict "app.kubernetes.io/instance" .Release.Name "app.kubernetes.io/name" (include "keymount-azure.name" .) -}}
{{- $labels = mergeOverwrite $labels (deepCopy (.Values.linux.podLabels | default dict)) -}}
{{- include "keymount-azure.strings" (set $labels "app" (include "keymount-azure.name" .)) -}}
{{- end -}}

{{- /* "true" or "false" as a string, which --set-string gives, means the same. */ -}}
{{- define "keymount-azure.isTrue" -}}{{ if eq (toString .) "true" }}true{{ end }}{{- end -}}
{{- define "keymount-azure.isNotFalse" -}}{{ if ne (toString .) "false" }}true{{ end }}{{- end -}}

{{- define "keymount-azure.serviceAccountName" -}}
{{- (.Values.serviceAccount).name | default "csi-secrets-store-provider-azure" -}}
{{- end -}}

{{- /* The provider's image. Upstream's has no readiness probe and would never be ready: its own repositories, which are in the values after
       --reuse-values, stand for the default, and a copy of it is refused. */ -}}
{{- define "keymount-azure.image" -}}
{{- $image := dict "repository" "ghcr.io/keymount/keymount-azure" "tag" .Chart.AppVersion "digest" "" -}}
{{- $given := .Values.linux.image | default dict -}}
{{- if include "keymount-azure.upstreamImage" . -}}
  {{- $given = dict -}}
{{- else if and (regexMatch "(^|/)provider-azure$" ($given.repository | default "")) (regexMatch "^v?1\\." (toString $given.tag)) -}}
  {{- fail (printf "linux.image.repository=%s, linux.image.tag=%s: this looks like a copy of upstream's provider, which has no readiness probe and would never be ready. Give the repository and the tag of a copy of ghcr.io/keymount/keymount-azure:%s" $given.repository (toString $given.tag) .Chart.AppVersion) -}}
{{- end -}}
{{- range $key := list "repository" "tag" "digest" -}}
  {{- with get $given $key }}{{ $_ := set $image $key (toString .) }}{{ end -}}
{{- end -}}
{{- if $image.digest }}{{ $image.repository }}@{{ $image.digest }}{{ else }}{{ $image.repository }}:{{ $image.tag }}{{ end -}}
{{- end -}}

{{- define "keymount-azure.upstreamImage" -}}
{{- $repository := (.Values.linux.image).repository | default "" -}}
{{- if regexMatch "^mcr\\.microsoft\\.com/(oss/(v2/)?azure/secrets-store|k8s/csi/secrets-store)/provider-azure$" $repository }}{{ $repository }}{{ end -}}
{{- end -}}

{{- /* The name of the priority class, or nothing. On GKE an admission quota refuses system-node-critical outside kube-system; where the
       version does not say that it is GKE (helm template of Helm 3, as Argo CD runs it), an API of GKE's does. */ -}}
{{- define "keymount-azure.priorityClassName" -}}
{{- $name := .Values.linux.priorityClassName | default "" -}}
{{- $gke := or (contains "-gke." .Capabilities.KubeVersion.Version) (.Capabilities.APIVersions.Has "networking.gke.io/v1") -}}
{{- $refused := and $gke (ne .Release.Namespace "kube-system") -}}
{{- if eq $name "none" -}}
{{- else if $name }}{{ $name -}}
{{- else if not $refused }}system-node-critical{{ end -}}
{{- end -}}

{{- /* The port of the metrics, 0 where they are off. */ -}}
{{- define "keymount-azure.metricsPort" -}}
{{- regexFind "[0-9]+$" (toString (.Values.metricsAddr | default (eq (toString .Values.metricsAddr) "0" | ternary "0" "8898"))) | default "8898" -}}
{{- end -}}

{{- /* Labels, annotations and node selectors as YAML. Their values are strings, and `--set`, which Terraform's `set` is as well, makes
       numbers and booleans of what looks like them. */ -}}
{{- define "keymount-azure.strings" -}}
{{- $all := dict -}}
{{- range $key, $value := . }}{{ $_ := set $all $key (include "keymount-azure.string" $value) }}{{ end -}}
{{- toYaml $all -}}
{{- end -}}

{{- /* Tolerations and environment as YAML, with strings as values likewise. */ -}}
{{- define "keymount-azure.stringValues" -}}
{{- $all := list -}}
{{- range . -}}
  {{- $item := deepCopy . -}}
  {{- if hasKey $item "value" }}{{ $_ := set $item "value" (include "keymount-azure.string" $item.value) }}{{ end -}}
  {{- $all = append $all $item -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{- define "keymount-azure.string" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if not (kindIs "invalid" .) }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- /* The keys of values that the README does not list, one a line: most are typos. */ -}}
{{- define "keymount-azure.unknownKeys" -}}
{{- range $key, $value := .values -}}
  {{- $path := print $.prefix $key -}}
  {{- $listed := contains (printf "\n| %s |" $path) $.readme -}}
  {{- if and (kindIs "map" $value) (contains (printf "\n| %s." $path) $.readme) -}}
    {{- include "keymount-azure.unknownKeys" (dict "values" $value "prefix" (print $path ".") "readme" $.readme) -}}
  {{- else if not $listed -}}
    {{- println $path -}}
  {{- end -}}
{{- end -}}
{{- end -}}

{{- /* The same for the driver, whose scope this is. Another driver's chart in its place may have no list. */ -}}
{{- define "keymount-azure.unknownDriverKeys" -}}
{{- $readme := .Files.Get "README.md" -}}
{{- if contains "\n| linux.enabled |" $readme -}}
  {{- range include "keymount-azure.unknownKeys" (dict "values" (omit .Values "global" "windows" "install") "prefix" "" "readme" $readme) | splitList "\n" | compact -}}
    {{- println (print "secrets-store-csi-driver." .) -}}
  {{- end -}}
{{- end -}}
{{- end -}}
