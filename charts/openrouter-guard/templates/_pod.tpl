{{/* Merges the maps of a list, the first before the others, and leaves out fields that are null. */}}
{{- define "openrouter-guard.merged" -}}
{{- $all := dict }}
{{- range . }}
{{- range $key, $value := . }}
{{- if not (hasKey $all $key) }}
{{- $_ := set $all $key $value }}
{{- end }}
{{- end }}
{{- end }}
{{- $found := dict }}
{{- range $key, $value := $all }}
{{- if not (kindIs "invalid" $value) }}
{{- $_ := set $found $key $value }}
{{- end }}
{{- end }}
{{- toYaml $found }}
{{- end }}

{{/* All of a pod but its containers, volumes and account; takes (list $ part "component"). */}}
{{- define "openrouter-guard.podSettings" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
{{- include "openrouter-guard.pulling" $root }}
{{- with include "openrouter-guard.placement" . | trim }}
{{ . }}
{{- end }}
securityContext: {{- include "openrouter-guard.merged" (list $part.podSecurityContext $root.Values.podSecurityContext) | nindent 2 }}
{{- range $key := list "priorityClassName" "dnsPolicy" "dnsConfig" "hostNetwork" "hostAliases" "initContainers" }}
{{- with get $part $key }}
{{ $key }}: {{ toJson . }}
{{- end }}
{{- end }}
{{- if and $part.hostNetwork (not $part.dnsPolicy) }}
# Else it would not find Services by name.
dnsPolicy: ClusterFirstWithHostNet
{{- end }}
{{- end }}

{{- define "openrouter-guard.pulling" -}}
# A Service that is called like our variables would set some of them.
enableServiceLinks: false
{{- $secrets := list }}
{{- range concat (default list (.Values.global).imagePullSecrets) .Values.imagePullSecrets }}
{{- $secrets = append $secrets (ternary (dict "name" .) . (kindIs "string" .)) }}
{{- end }}
{{- with uniq $secrets }}
imagePullSecrets: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* Where the pods go; takes (list $ part "component"). */}}
{{- define "openrouter-guard.placement" -}}
{{- $root := index . 0 }}
{{- $ours := dict "matchLabels" (include "openrouter-guard.selectorLabels" (list $root (index . 2)) | fromYaml) }}
{{- with index . 1 }}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $affinity := deepCopy .affinity }}
{{- $term := dict "topologyKey" "kubernetes.io/hostname" "labelSelector" $ours }}
{{- if and (eq .podAntiAffinity "soft") (not (hasKey $affinity "podAntiAffinity")) }}
{{- $soft := list (dict "weight" 100 "podAffinityTerm" $term) }}
{{- $_ := set $affinity "podAntiAffinity" (dict "preferredDuringSchedulingIgnoredDuringExecution" $soft) }}
{{- else if and (eq .podAntiAffinity "hard") (not (hasKey $affinity "podAntiAffinity")) }}
{{- $_ := set $affinity "podAntiAffinity" (dict "requiredDuringSchedulingIgnoredDuringExecution" (list $term)) }}
{{- end }}
{{- with $affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints:
{{- range . }}
  - {{- toYaml (merge (deepCopy .) (ternary dict (dict "labelSelector" $ours) (hasKey . "labelSelector"))) | nindent 4 }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}

{{/* The files for TLS to Redis, and what else is wanted; takes (list $ part). */}}
{{- define "openrouter-guard.volumes" -}}
{{- $volumes := list }}
{{- with (index . 0).Values.redis.tls.secretName }}
{{- $volumes = append $volumes (dict "name" "redis-tls" "secret" (dict "secretName" .)) }}
{{- end }}
{{- if (index . 0).Values.tls.enabled }}
{{- $volumes = append $volumes (dict "name" "tls" "secret" (dict "secretName" (include "openrouter-guard.tlsSecretName" (index . 0)))) }}
{{- end }}
{{- with concat $volumes (index . 1).extraVolumes }}
volumes: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{- define "openrouter-guard.volumeMounts" -}}
{{- $mounts := list }}
{{- if (index . 0).Values.redis.tls.secretName }}
{{- $mounts = append $mounts (dict "name" "redis-tls" "mountPath" "/etc/openrouter-guard/redis" "readOnly" true) }}
{{- end }}
{{- if (index . 0).Values.tls.enabled }}
{{- $mounts = append $mounts (dict "name" "tls" "mountPath" "/etc/openrouter-guard/tls" "readOnly" true) }}
{{- end }}
{{- with concat $mounts (index . 1).extraVolumeMounts }}
volumeMounts: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/*
What both containers have alike; takes (list $ part). A process with a CPU limit of 50m takes half a minute to start, and
one on a busy node takes its time to answer: neither is a reason to kill it.
*/}}
{{- define "openrouter-guard.containerSettings" -}}
{{- $root := index . 0 }}
{{- $part := index . 1 }}
image: {{ include "openrouter-guard.image" $root | quote }}
imagePullPolicy: {{ $root.Values.image.pullPolicy }}
{{- with $part.envFrom }}
envFrom: {{- toYaml . | nindent 2 }}
{{- end }}
{{- $alive := dict "path" "/livez" "port" "http" }}
{{- $ready := dict "path" "/readyz" "port" "http" }}
{{- if $root.Values.tls.enabled }}
{{- $_ := set $alive "scheme" "HTTPS" }}
{{- $_ := set $ready "scheme" "HTTPS" }}
{{- end }}
startupProbe:
  {{- $probe := dict "httpGet" $alive "periodSeconds" 5 "timeoutSeconds" 5 "failureThreshold" 60 }}
  {{- include "openrouter-guard.merged" (list $part.startupProbe $probe) | nindent 2 }}
# Both are about this process alone: were they about Redis or OpenRouter, all pods would go at once.
livenessProbe:
  {{- $probe := dict "httpGet" $alive "periodSeconds" 10 "timeoutSeconds" 10 "failureThreshold" 6 }}
  {{- include "openrouter-guard.merged" (list $part.livenessProbe $probe) | nindent 2 }}
readinessProbe:
  {{- $probe := dict "httpGet" $ready "periodSeconds" 5 "timeoutSeconds" 3 }}
  {{- include "openrouter-guard.merged" (list $part.readinessProbe $probe) | nindent 2 }}
securityContext:
  {{- include "openrouter-guard.merged" (list $part.containerSecurityContext $root.Values.containerSecurityContext) | nindent 2 }}
resources: {{- toYaml $part.resources | nindent 2 }}
{{- with include "openrouter-guard.volumeMounts" . | trim }}
{{ . }}
{{- end }}
{{- end }}

{{/* The environment that both components share. */}}
{{- define "openrouter-guard.env" -}}
{{- include "openrouter-guard.check" . -}}
- name: REDIS_URL
{{- with .Values.redis }}
{{- if .existingSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret.name }}
      key: {{ .existingSecret.key }}
{{- else }}
  value: {{ include "openrouter-guard.redisUrl" $ | quote }}
{{- end }}
{{- end }}
- name: OPENROUTER_GUARD_SCOPE
  value: {{ .Values.scope | quote }}
- name: OPENROUTER_GUARD_LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: OPENROUTER_GUARD_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- if not .Values.strictX509 }}
- name: OPENROUTER_GUARD_STRICT_X509
  value: "false"
{{- end }}
{{- if .Values.tls.enabled }}
- name: OPENROUTER_GUARD_TLS_CERT_FILE
  value: /etc/openrouter-guard/tls/tls.crt
- name: OPENROUTER_GUARD_TLS_KEY_FILE
  value: /etc/openrouter-guard/tls/tls.key
{{- end }}
{{- range $name, $value := .Values.thresholds }}
- name: OPENROUTER_GUARD_{{ $name }}
  value: {{ $value | toJson | quote }}
{{- end }}
{{- end }}

{{/* Takes (list variables extraEnv), the first as text: what the user sets goes before what the chart sets. */}}
{{- define "openrouter-guard.withExtraEnv" -}}
{{- $extra := index . 1 }}
{{- $names := list }}
{{- range $extra }}{{ $names = append $names .name }}{{ end }}
{{- range index . 0 | fromYamlArray }}
{{- if not (has .name $names) }}
{{ list . | toYaml }}
{{- end }}
{{- end }}
{{- with $extra }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "openrouter-guard.budget" -}}
{{- $root := index . 0 }}
{{- $budget := index . 1 }}
spec:
  # Not minAvailable: with one replica that would block every drain.
  maxUnavailable: {{ $budget.maxUnavailable }}
  # Nor may pods that are not ready: they would be waited for, for good.
  unhealthyPodEvictionPolicy: {{ $budget.unhealthyPodEvictionPolicy }}
  selector:
    matchLabels: {{- include "openrouter-guard.selectorLabels" (list $root (index . 2)) | nindent 6 }}
{{- end }}
