{{- /* Values may come from upstream's chart by --reuse-values: none of those that only this chart has may be taken for given. */ -}}

{{- define "secrets-store-csi-driver.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- define "secrets-store-csi-driver.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- $full := printf "%s-%s" .Release.Name $name -}}
{{- if contains $name .Release.Name }}{{ $full = .Release.Name }}{{ end -}}
{{- default $full .Values.fullnameOverride | trunc 63 | trimSuffix "-" -}}
{{- end -}}

{{- /* The selector of upstream's DaemonSet: it cannot be changed, and an upgrade must find its pods. */ -}}
{{- define "secrets-store-csi-driver.selector" -}}
app: {{ include "secrets-store-csi-driver.name" . | quote }}
{{- end -}}

{{- define "secrets-store-csi-driver.labels" -}}
{{- $labels := dict
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/managed-by" .Release.Service
  "app.kubernetes.io/name" (include "secrets-store-csi-driver.name" .)
  "app.kubernetes.io/version" .Chart.AppVersion
  "helm.sh/chart" (printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_") -}}
{{- $labels = mergeOverwrite $labels (deepCopy (.Values.commonLabels | default dict)) -}}
{{- include "secrets-store-csi-driver.strings" (set $labels "app" (include "secrets-store-csi-driver.name" .)) -}}
{{- end -}}

{{- /* Without the chart's version and the like: pods must not be replaced where nothing of theirs changed. */ -}}
{{- define "secrets-store-csi-driver.podLabels" -}}
{{- $labels := dict
  "app.kubernetes.io/instance" .Release.Name
  "app.kubernetes.io/name" (include "secrets-store-csi-driver.name" .) -}}
{{- $labels = mergeOverwrite $labels (deepCopy (.Values.commonLabels | default dict)) (deepCopy (.Values.linux.podLabels | default dict)) -}}
{{- include "secrets-store-csi-driver.strings" (set $labels "app" (include "secrets-store-csi-driver.name" .)) -}}
{{- end -}}

{{- /* "true" or "false" as a string, which --set-string gives, means the same. */ -}}
{{- define "secrets-store-csi-driver.isTrue" -}}{{ if eq (toString .) "true" }}true{{ end }}{{- end -}}
{{- define "secrets-store-csi-driver.isNotFalse" -}}{{ if ne (toString .) "false" }}true{{ end }}{{- end -}}

{{- define "secrets-store-csi-driver.serviceAccountName" -}}
{{- (.Values.serviceAccount).name | default "secrets-store-csi-driver" -}}
{{- end -}}

{{- /* With rbac.install=false the account may be somebody else's: it is made unless it is there and not of this release. */ -}}
{{- define "secrets-store-csi-driver.createServiceAccount" -}}
{{- if include "secrets-store-csi-driver.isNotFalse" (.Values.serviceAccount).create -}}
  {{- $there := dict -}}
  {{- if not (include "secrets-store-csi-driver.isNotFalse" (.Values.rbac).install) -}}
    {{- $there = lookup "v1" "ServiceAccount" .Release.Namespace (include "secrets-store-csi-driver.serviceAccountName" .) -}}
  {{- end -}}
  {{- $owner := dig "metadata" "annotations" "meta.helm.sh/release-name" "" ($there | default dict) -}}
  {{- if or (not $there) (eq $owner .Release.Name) }}true{{ end -}}
{{- end -}}
{{- end -}}

{{- define "secrets-store-csi-driver.subject" -}}
- kind: ServiceAccount
  name: {{ include "secrets-store-csi-driver.serviceAccountName" . | quote }}
  namespace: {{ .Release.Namespace | quote }}
{{- end -}}

{{- /* An image, from a map with repository, tag and digest. */ -}}
{{- define "secrets-store-csi-driver.reference" -}}
{{- if .digest }}{{ .repository }}@{{ .digest }}{{ else }}{{ .repository }}:{{ .tag }}{{ end -}}
{{- end -}}

{{- /* The driver's image. Upstream's knows neither this chart's arguments nor its probes and would not start: its own repositories, which are in
       the values after --reuse-values, stand for the default, and a copy of it is refused. */ -}}
{{- define "secrets-store-csi-driver.image" -}}
{{- $image := dict "repository" "ghcr.io/keymount/keymount-driver" "tag" .Chart.AppVersion "digest" "" -}}
{{- $given := .Values.linux.image | default dict -}}
{{- if include "secrets-store-csi-driver.upstreamImage" . -}}
  {{- $given = dict -}}
{{- else if and (regexMatch "(^|/)(csi-)?secrets-store/driver$" ($given.repository | default "")) (regexMatch "^v1\\." (toString $given.tag)) -}}
  {{- fail (printf "linux.image.repository=%s, linux.image.tag=%s: this looks like a copy of upstream's driver, which does not know the arguments of this chart. Give the repository and the tag of a copy of ghcr.io/keymount/keymount-driver:%s" $given.repository (toString $given.tag) .Chart.AppVersion) -}}
{{- end -}}
{{- range $key := list "repository" "tag" "digest" -}}
  {{- with get $given $key }}{{ $_ := set $image $key (toString .) }}{{ end -}}
{{- end -}}
{{- include "secrets-store-csi-driver.reference" $image -}}
{{- end -}}

{{- define "secrets-store-csi-driver.upstreamImage" -}}
{{- $repository := (.Values.linux.image).repository | default "" -}}
{{- if regexMatch "^(registry\\.k8s\\.io|k8s\\.gcr\\.io)/csi-secrets-store/driver$|^mcr\\.microsoft\\.com/oss/(v2/)?kubernetes-csi/secrets-store/driver$" $repository -}}
{{- $repository -}}
{{- end -}}
{{- end -}}

{{- /* The name of the priority class, or nothing. On GKE an admission quota refuses system-node-critical outside kube-system; where the
       version does not say that it is GKE (helm template of Helm 3, as Argo CD runs it), an API of GKE's does. */ -}}
{{- define "secrets-store-csi-driver.priorityClassName" -}}
{{- $name := .Values.linux.priorityClassName | default "" -}}
{{- $gke := or (contains "-gke." .Capabilities.KubeVersion.Version) (.Capabilities.APIVersions.Has "networking.gke.io/v1") -}}
{{- $refused := and $gke (ne .Release.Namespace "kube-system") -}}
{{- if eq $name "none" -}}
{{- else if $name }}{{ $name -}}
{{- else if not $refused }}system-node-critical{{ end -}}
{{- end -}}

{{- /* The address of the metrics, or 0 where they are off. A port alone, as the provider's chart has it, is one of all interfaces. */ -}}
{{- define "secrets-store-csi-driver.metricsAddr" -}}
{{- $addr := toString (.Values.linux.metricsAddr | default (eq (toString .Values.linux.metricsAddr) "0" | ternary "0" ":8095")) -}}
{{- if regexMatch "^(.*:)?0+$" $addr }}0{{ else if regexMatch "^[0-9]+$" $addr }}:{{ $addr }}{{ else }}{{ $addr }}{{ end -}}
{{- end -}}

{{- /* The port of the metrics, or nothing where they are off. */ -}}
{{- define "secrets-store-csi-driver.metricsPort" -}}
{{- regexFind "[1-9][0-9]*$" (include "secrets-store-csi-driver.metricsAddr" .) -}}
{{- end -}}

{{- /* Labels, annotations and node selectors as YAML. Their values are strings, and `--set`, which Terraform's `set` is as well, makes
       numbers and booleans of what looks like them. */ -}}
{{- define "secrets-store-csi-driver.strings" -}}
{{- $all := dict -}}
{{- range $key, $value := . }}{{ $_ := set $all $key (include "secrets-store-csi-driver.string" $value) }}{{ end -}}
{{- toYaml $all -}}
{{- end -}}

{{- /* Tolerations and environment as YAML, with strings as values likewise. */ -}}
{{- define "secrets-store-csi-driver.stringValues" -}}
{{- $all := list -}}
{{- range . -}}
  {{- $item := deepCopy . -}}
  {{- if hasKey $item "value" }}{{ $_ := set $item "value" (include "secrets-store-csi-driver.string" $item.value) }}{{ end -}}
  {{- $all = append $all $item -}}
{{- end -}}
{{- toYaml $all -}}
{{- end -}}

{{- define "secrets-store-csi-driver.string" -}}
{{- if kindIs "string" . }}{{ . }}{{ else if not (kindIs "invalid" .) }}{{ toJson . }}{{ end -}}
{{- end -}}

{{- /* The keys of values that the README does not list, one a line: most are typos. */ -}}
{{- define "secrets-store-csi-driver.unknownKeys" -}}
{{- range $key, $value := .values -}}
  {{- $path := print $.prefix $key -}}
  {{- $listed := contains (printf "\n| %s |" $path) $.readme -}}
  {{- if and (kindIs "map" $value) (contains (printf "\n| %s." $path) $.readme) -}}
    {{- include "secrets-store-csi-driver.unknownKeys" (dict "values" $value "prefix" (print $path ".") "readme" $.readme) -}}
  {{- else if not $listed -}}
    {{- println $path -}}
  {{- end -}}
{{- end -}}
{{- end -}}
