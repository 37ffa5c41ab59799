{{/* What all names begin with; short enough for any ending. */}}
{{- define "openrouter-guard.fullname" -}}
{{- $name := default .Chart.Name .Values.nameOverride }}
{{- $full := ternary .Release.Name (printf "%s-%s" .Release.Name $name) (contains $name .Release.Name) }}
{{- default $full .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- end }}

{{- define "openrouter-guard.operatorName" -}}
{{ include "openrouter-guard.fullname" . }}-operator
{{- end }}

{{/* Of what may leave the release's namespace: two releases of one name in two namespaces must not meet. */}}
{{- define "openrouter-guard.rightsName" -}}
{{ .Release.Namespace }}-{{ include "openrouter-guard.operatorName" . }}
{{- end }}

{{- define "openrouter-guard.serviceAccountName" -}}
{{ default (include "openrouter-guard.operatorName" .) .Values.operator.serviceAccount.name }}
{{- end }}

{{/* Takes (list $ "component"); a Deployment's selector can never change, so nothing here depends on a version. */}}
{{- define "openrouter-guard.selectorLabels" -}}
{{- $root := index . 0 -}}
app.kubernetes.io/name: {{ default $root.Chart.Name $root.Values.nameOverride | trunc 63 | trimSuffix "-" }}
app.kubernetes.io/instance: {{ $root.Release.Name }}
app.kubernetes.io/component: {{ index . 1 }}
{{- end }}

{{/*
Takes (list $ "component"), and more labels where there are any. The operator pauses nothing that is part of
openrouter-guard, so nobody's labels go before these.
*/}}
{{- define "openrouter-guard.labels" -}}
{{- $root := index . 0 -}}
{{- $ours := include "openrouter-guard.ownLabels" (list $root (index . 1)) | fromYaml }}
{{- $more := dict }}
{{- if gt (len .) 2 }}{{ $more = index . 2 }}{{ end }}
{{- toYaml (merge $ours (deepCopy $more) $root.Values.commonLabels (default dict ($root.Values.global).commonLabels)) }}
{{- end }}

{{- define "openrouter-guard.ownLabels" -}}
{{- $root := index . 0 -}}
{{ include "openrouter-guard.selectorLabels" . }}
app.kubernetes.io/part-of: openrouter-guard
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/*
An object's metadata; takes (dict "root" $ "component" … "name" …), and labels, annotations and namespace where there are
any. The namespace is the release's by default; "" is none, for what belongs to the cluster.
*/}}
{{- define "openrouter-guard.metadata" -}}
{{- $namespace := ternary .namespace .root.Release.Namespace (hasKey . "namespace") -}}
name: {{ .name }}
{{- with $namespace }}
namespace: {{ . }}
{{- end }}
{{ include "openrouter-guard.marks" . }}
{{- end }}

{{/* The labels and annotations among them. */}}
{{- define "openrouter-guard.marks" -}}
labels: {{- include "openrouter-guard.labels" (list .root .component (default dict .labels)) | nindent 2 }}
{{- with merge (deepCopy (default dict .annotations)) .root.Values.commonAnnotations }}
annotations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
Where an image is; takes (list $ image). A registry for all of a parent's charts takes the place of what a repository
begins with where that is a registry: a mirror has the same repositories.
*/}}
{{- define "openrouter-guard.imageOf" -}}
{{- $root := index . 0 -}}
{{- with index . 1 }}
{{- $global := default "" ($root.Values.global).imageRegistry }}
{{- $repository := .repository }}
{{- if and $global (regexMatch "^(localhost|[^/]*[.:][^/]*)/" $repository) }}
{{- $repository = regexReplaceAll "^[^/]*/" $repository "" }}
{{- end }}
{{- with default .registry $global | trimSuffix "/" }}{{ . }}/{{ end }}{{ $repository }}
{{- with .digest }}@{{ . }}{{ else }}:{{ default $root.Chart.AppVersion .tag }}{{ end }}
{{- end }}
{{- end }}

{{- define "openrouter-guard.image" -}}
{{ include "openrouter-guard.imageOf" (list . .Values.image) }}
{{- end }}

{{/* The address of Redis where it is no secret. */}}
{{- define "openrouter-guard.redisUrl" -}}
{{- if .Values.valkey.enabled -}}
redis://{{ include "openrouter-guard.fullname" . }}-valkey:6379/0
{{- else -}}
{{ .Values.redis.url }}
{{- end }}
{{- end }}

{{/* How others speak to both parts. */}}
{{- define "openrouter-guard.scheme" -}}
{{ ternary "https" "http" .Values.tls.enabled }}
{{- end }}

{{- define "openrouter-guard.tlsSecretName" -}}
{{ default (printf "%s-tls" (include "openrouter-guard.fullname" .)) .Values.tls.secretName }}
{{- end }}
