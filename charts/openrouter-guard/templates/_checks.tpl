{{/* All of them; takes the root. */}}
{{- define "openrouter-guard.check" -}}
{{- include "openrouter-guard.checkRedis" . -}}
{{- include "openrouter-guard.checkThresholds" .Values.thresholds -}}
{{- include "openrouter-guard.checkScopes" . -}}
{{- include "openrouter-guard.checkTls" .Values.tls -}}
{{- end }}

{{- define "openrouter-guard.checkTls" -}}
{{- if and .enabled (not .secretName) (not .certManager.enabled) }}
{{- fail "tls.enabled is true, and there is no certificate: name a Secret in tls.secretName, or set tls.certManager.enabled" }}
{{- else if and .enabled .certManager.enabled (not .certManager.issuerRef.name) }}
{{- fail "tls.certManager.issuerRef.name is empty: name the issuer that cert-manager is to ask" }}
{{- end }}
{{- end }}

{{/* Here and not in the schema, whose messages would repeat the address with its password. */}}
{{- define "openrouter-guard.checkRedis" -}}
{{- with .Values.redis }}
{{- if and $.Values.valkey.enabled (or .url .existingSecret.name) }}
{{- fail "valkey.enabled is true, and redis.url or redis.existingSecret.name is set: keep the one that is right" }}
{{- else if and .url .existingSecret.name }}
{{- fail "redis.url and redis.existingSecret.name are both set: keep the one that is right" }}
{{- else if not (or .url .existingSecret.name $.Values.valkey.enabled) }}
{{- fail "redis.existingSecret.name and redis.url are empty: name a Secret that holds the address of Redis, or set redis.url, such as redis://redis:6379/0; to try it out without one, set valkey.enabled" }}
{{- else if regexMatch "(://[^/]*:[^/]*@|[?&](sentinel_)?password=)" .url }}
{{- fail "redis.url holds a password, which anyone who reads the Deployment would see: put the address into a Secret, and name that in redis.existingSecret.name" }}
{{- else if and .url (not (regexMatch "^(rediss?(\\+(sentinel|cluster))?|unix)://" .url)) }}
{{- fail "redis.url is no address of Redis: write redis://host:6379/0, rediss://… for TLS, unix:///path, redis+sentinel://… or redis+cluster://…" }}
{{- end }}
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
  "CHECK_SLOT_SECONDS" 60 "FIRST_WAIT_SECONDS" 6 "LONGEST_WAIT_SECONDS" 15 }}
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

{{/*
Takes (list "operator" extraEnv (list names)). A variable that stands twice breaks an upgrade, and some of ours have to
be as the chart says.
*/}}
{{- define "openrouter-guard.checkEnv" -}}
{{- $part := index . 0 }}
{{- $names := list }}
{{- range index . 1 }}
{{- if has .name $names }}
{{- fail (printf "%s.extraEnv has %s twice: keep the one that is right" $part .name) }}
{{- end }}
{{- $names = append $names .name }}
{{- end }}
{{- range $name, $value := index . 2 }}
{{- if has $name $names }}
{{- fail (printf "%s.extraEnv has %s, which has to agree with other objects of the chart: %s" $part $name $value) }}
{{- end }}
{{- end }}
{{- end }}

{{/* What outsiders reach has to ask for a token; takes the root. */}}
{{- define "openrouter-guard.checkPublished" -}}
{{- with .Values.healthService }}
{{- if not .readToken.existingSecret.name }}
{{- fail "healthService.ingress and healthService.httpRoute need healthService.readToken.existingSecret.name: without a token, whoever reaches them can read the state of your account" }}
{{- end }}
{{- end }}
{{- end }}
