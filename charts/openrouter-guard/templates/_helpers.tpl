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

{{/* Takes (list $ "component"). The operator pauses nothing that is part of openrouter-guard. */}}
{{- define "openrouter-guard.labels" -}}
{{- $root := index . 0 -}}
{{ include "openrouter-guard.selectorLabels" . }}
app.kubernetes.io/part-of: openrouter-guard
app.kubernetes.io/version: {{ $root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $root.Chart.Name $root.Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "openrouter-guard.image" -}}
{{- with .Values.image }}
{{- if .digest -}}
{{ .repository }}@{{ .digest }}
{{- else -}}
{{ .repository }}:{{ default $.Chart.AppVersion .tag }}
{{- end }}
{{- end }}
{{- end }}

{{/* The pod's part of the security context; the container's is below. */}}
{{- define "openrouter-guard.podSecurityContext" -}}
runAsNonRoot: true
runAsUser: 65534
runAsGroup: 65534
seccompProfile:
  type: RuntimeDefault
{{- end }}

{{- define "openrouter-guard.containerSecurityContext" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end }}

{{/* Where the pods go; takes the values of one component. */}}
{{- define "openrouter-guard.placement" -}}
{{- with .nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .topologySpreadConstraints }}
topologySpreadConstraints: {{- toYaml . | nindent 2 }}
{{- end }}
{{- end }}

{{/* The files for TLS to Redis, where there are any. */}}
{{- define "openrouter-guard.volumes" -}}
{{- with .Values.redis.tls.secretName }}
volumes:
  - name: redis-tls
    secret:
      secretName: {{ . }}
{{- end }}
{{- end }}

{{- define "openrouter-guard.volumeMounts" -}}
{{- with .Values.redis.tls.secretName }}
volumeMounts:
  - name: redis-tls
    mountPath: /etc/openrouter-guard/redis
    readOnly: true
{{- end }}
{{- end }}

{{/* The environment that both components share. */}}
{{- define "openrouter-guard.env" -}}
{{- include "openrouter-guard.checkRedis" .Values.redis -}}
{{- include "openrouter-guard.checkThresholds" .Values.thresholds -}}
{{- include "openrouter-guard.checkScopes" . -}}
- name: REDIS_URL
{{- with .Values.redis }}
{{- if .existingSecret.name }}
  valueFrom:
    secretKeyRef:
      name: {{ .existingSecret.name }}
      key: {{ .existingSecret.key }}
{{- else }}
  value: {{ .url | quote }}
{{- end }}
{{- end }}
- name: OPENROUTER_GUARD_SCOPE
  value: {{ .Values.scope | quote }}
- name: OPENROUTER_GUARD_LOG_LEVEL
  value: {{ .Values.logLevel }}
- name: OPENROUTER_GUARD_LOG_FORMAT
  value: {{ .Values.logFormat }}
{{- range $name, $value := .Values.thresholds }}
- name: OPENROUTER_GUARD_{{ $name }}
  value: {{ $value | toJson | quote }}
{{- end }}
{{- end }}

{{/* Here and not in the schema, whose messages would repeat the address with its password. */}}
{{- define "openrouter-guard.checkRedis" -}}
{{- if and .url .existingSecret.name }}
{{- fail "redis.url and redis.existingSecret.name are both set: keep the one that is right" }}
{{- else if not (or .url .existingSecret.name) }}
{{- fail "redis.existingSecret.name and redis.url are empty: name a Secret that holds the address of Redis, or set redis.url, such as redis://redis:6379/0" }}
{{- else if regexMatch "(://[^/]*:[^/]*@|[?&](sentinel_)?password=)" .url }}
{{- fail "redis.url holds a password, which anyone who reads the Deployment would see: put the address into a Secret, and name that in redis.existingSecret.name" }}
{{- else if not (or .existingSecret.name (regexMatch "^(rediss?(\\+(sentinel|cluster))?|unix)://" .url)) }}
{{- fail "redis.url is no address of Redis: write redis://host:6379/0, rediss://… for TLS, unix:///path, redis+sentinel://… or redis+cluster://…" }}
{{- end }}
{{- end }}

{{/*
The pairs in which the first may not be above the second, as the processes themselves refuse them at their start: a
release that would only restart for ever is refused here.
*/}}
{{- define "openrouter-guard.checkThresholds" -}}
{{- $thresholds := . }}
{{- $defaults := dict "RESET_TIMEOUT_SECONDS" 120 "MAX_RESET_TIMEOUT_SECONDS" 960 "COOLDOWN_SECONDS" 5
  "MAX_COOLDOWN_SECONDS" 60 "PERMIT_LEASE_SECONDS" 15 "TRIAL_CALL_SECONDS" 600 "FRESH_SECONDS" 60 "STALE_SECONDS" 300
  "CHECK_SLOT_SECONDS" 60 "FIRST_WAIT_SECONDS" 10 "LONGEST_WAIT_SECONDS" 30 }}
{{- range $pair := list
  (list "FIRST_WAIT_SECONDS" "LONGEST_WAIT_SECONDS" "or by default")
  (list "FIRST_WAIT_SECONDS" "RESET_TIMEOUT_SECONDS" "if set")
  (list "LONGEST_WAIT_SECONDS" "RESET_TIMEOUT_SECONDS" "if set")
  (list "RESET_TIMEOUT_SECONDS" "MAX_RESET_TIMEOUT_SECONDS" "or by default")
  (list "COOLDOWN_SECONDS" "MAX_COOLDOWN_SECONDS" "or by default")
  (list "PERMIT_LEASE_SECONDS" "TRIAL_CALL_SECONDS" "or by default")
  (list "MIN_FRESH_SECONDS" "FRESH_SECONDS" "if set")
  (list "FRESH_SECONDS" "MAX_FRESH_SECONDS" "or by default")
  (list "FRESH_SECONDS" "STALE_SECONDS" "or by default")
  (list "MAX_FRESH_SECONDS" "STALE_SECONDS" "if set")
  (list "RECHECK_SECONDS" "RESET_TIMEOUT_SECONDS" "if set")
  (list "CHECK_SLOT_SECONDS" "STALE_SECONDS" "if set")
  (list "CHECK_TIMEOUT_SECONDS" "CHECK_SLOT_SECONDS" "if set")
  (list "REDIS_TIMEOUT_SECONDS" "PERMIT_LEASE_SECONDS" "if set") }}
{{- $low := index $pair 0 }}
{{- $high := index $pair 1 }}
{{- $lower := get $thresholds $low | default (ternary 0 (get $defaults $low) (eq (index $pair 2) "if set")) }}
{{- $upper := get $thresholds $high | default (get $defaults $high) }}
{{- if and $upper (gt (float64 $lower) (float64 $upper)) }}
{{- fail (printf "thresholds.%s is %s%s, above thresholds.%s, which is %s%s: lower the first or raise the second"
  $low (toJson $lower) (ternary "" " by default" (hasKey $thresholds $low))
  $high (toJson $upper) (ternary "" " by default" (hasKey $thresholds $high))) }}
{{- end }}
{{- end }}
{{- end }}

{{/* Each scope once; takes the root. */}}
{{- define "openrouter-guard.checkScopes" -}}
{{- $scopes := list .Values.scope }}
{{- range .Values.openrouter.furtherScopes }}
{{- if has .scope $scopes }}
{{- fail (printf "openrouter.furtherScopes names the scope %s, which is there already: each scope is named once, be it there or in scope" .scope) }}
{{- end }}
{{- $scopes = append $scopes .scope }}
{{- end }}
{{- end }}
