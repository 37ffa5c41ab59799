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
