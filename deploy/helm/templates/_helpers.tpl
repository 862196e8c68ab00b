{{- define "usage.name" -}}
{{- default .Chart.Name .Values.nameOverride | trunc 63 | trimSuffix "-" }}
{{- end }}

{{- define "usage.fullname" -}}
{{- if .Values.fullnameOverride }}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" }}
{{- else if contains (include "usage.name" .) .Release.Name }}
{{- .Release.Name | trunc 50 | trimSuffix "-" }}
{{- else }}
{{- printf "%s-%s" .Release.Name (include "usage.name" .) | trunc 50 | trimSuffix "-" }}
{{- end }}
{{- end }}

{{- define "usage.selector" -}}
app.kubernetes.io/name: {{ include "usage.name" . }}
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "usage.labels" -}}
{{ include "usage.selector" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .Chart.Name .Chart.Version | replace "+" "_" }}
{{- end }}

{{- define "usage.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}
{{- end }}

{{/* The exporter's configuration: what the pod decides, then `config`. */}}
{{- define "usage.config" -}}
{{- $config := dict
  "state" (dict)
  "prometheus" (dict "host" "0.0.0.0" "port" 9185)
  "log" (dict "format" "json") }}
{{- with .Values.state.postgresql }}
{{- if .url }}
{{- $_ := set $config.state "url" .url }}
{{- if .existingSecret }}
{{- $_ := set $config.state "password_file" (printf "/run/secrets/postgresql/%s" .key) }}
{{- end }}
{{- else }}
{{- $_ := set $config.state "path" "/var/lib/otel-openai-usage/state.db" }}
{{- end }}
{{- end }}
{{- with .Values.openai.existingSecret }}
{{- $key := printf "/run/secrets/openai/%s" $.Values.openai.key }}
{{- $_ := set $config "organizations" (list (dict "admin_key_file" $key)) }}
{{- end }}
{{- with .Values.webConfig.existingSecret }}
{{- $_ := set $config.prometheus "web_config_file" (printf "/run/secrets/web/%s" $.Values.webConfig.key) }}
{{- end }}
{{- if .Values.events.enabled }}
{{- $tokens := printf "/run/secrets/events/%s" .Values.events.key }}
{{- $_ := set $config "events" (dict "enabled" true "host" "0.0.0.0" "port" .Values.events.port "tokens_file" $tokens) }}
{{- end }}
{{- mergeOverwrite $config (deepCopy .Values.config) | toYaml }}
{{- end }}

{{/* A standby's: it owns nothing. */}}
{{- define "usage.standby-config" -}}
{{- $config := include "usage.config" . | fromYaml }}
{{- $_ := set $config.state "standby" true }}
{{- $config | toYaml }}
{{- end }}

{{/* The dashboard's: without what names secrets, because it gets none. */}}
{{- define "usage.dashboard-config" -}}
{{- $config := include "usage.config" . | fromYaml }}
{{- $_ := unset $config.prometheus "web_config_file" }}
{{- if $config.events }}
{{- $_ := set $config "events" (omit $config.events "enabled" "tokens_file" "tokens") }}
{{- end }}
{{- $config | toYaml }}
{{- end }}

{{- define "usage.config-file" -}}
/etc/otel-openai-usage/config.yaml
{{- end }}

{{/* The value of `prometheus.port` and of `prometheus.path` in the configuration. */}}
{{- define "usage.metrics-port" -}}
{{- (include "usage.config" . | fromYaml).prometheus.port }}
{{- end }}
{{- define "usage.metrics-path" -}}
{{- (include "usage.config" . | fromYaml).prometheus.path | default "/metrics" }}
{{- end }}

{{- define "usage.probe" -}}
{{- $root := index . 0 }}
{{- $ready := index . 1 }}
{{- $probes := $root.Values.probes }}
{{- $web := (include "usage.config" $root | fromYaml).prometheus.web_config_file }}
{{- if or (eq $probes "exec") (and (eq $probes "auto") $web) -}}
exec:
  command: [otel-openai-usage, healthcheck, {{ if $ready }}--ready, {{ end }}-c, {{ include "usage.config-file" $root }}]
timeoutSeconds: 10
{{- else -}}
httpGet: {path: {{ ternary "/readyz" "/healthz" $ready }}, port: metrics}
timeoutSeconds: 5
{{- end }}
{{- end }}

{{- define "usage.container-security" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: {drop: [ALL]}
{{- end }}

{{- define "usage.mounts" -}}
- {name: config, mountPath: /etc/otel-openai-usage, readOnly: true}
{{- if .Values.state.postgresql.existingSecret }}
- {name: postgresql, mountPath: /run/secrets/postgresql, readOnly: true}
{{- end }}
{{- if not .Values.state.postgresql.url }}
- {name: state, mountPath: /var/lib/otel-openai-usage}
{{- end }}
- {name: tmp, mountPath: /tmp}
{{- with .Values.extraVolumeMounts }}
{{ toYaml . }}
{{- end }}
{{- end }}

{{- define "usage.secret-mounts" -}}
{{- if .Values.openai.existingSecret }}
- {name: key, mountPath: /run/secrets/openai, readOnly: true}
{{- end }}
{{- if .Values.webConfig.existingSecret }}
- {name: web, mountPath: /run/secrets/web, readOnly: true}
{{- end }}
{{- if .Values.events.enabled }}
- {name: events, mountPath: /run/secrets/events, readOnly: true}
{{- end }}
{{- end }}

{{- define "usage.exporter" -}}
{{- include "usage.run" (list . "config.yaml") }}
{{- end }}

{{- define "usage.standby" -}}
{{- include "usage.run" (list . "standby.yaml") }}
{{- end }}

{{/* The container of an exporter with the configuration of the list's second item. */}}
{{- define "usage.run" -}}
{{- $file := index . 1 }}
{{- with index . 0 -}}
name: exporter
image: {{ include "usage.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [run, -c, /etc/otel-openai-usage/{{ $file }}]
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: metrics, containerPort: {{ include "usage.metrics-port" . }}}
  {{- if .Values.events.enabled }}
  - {name: events, containerPort: {{ .Values.events.port }}}
  {{- end }}
# A large state is checked and read first; only then do the others count.
startupProbe:
  {{- include "usage.probe" (list . false) | nindent 2 }}
  periodSeconds: 5
  failureThreshold: 120
livenessProbe:
  {{- include "usage.probe" (list . false) | nindent 2 }}
  periodSeconds: 30
readinessProbe:
  {{- include "usage.probe" (list . true) | nindent 2 }}
  periodSeconds: 30
resources:
  {{- toYaml .Values.resources | nindent 2 }}
securityContext:
  {{- include "usage.container-security" . | nindent 2 }}
volumeMounts:
  {{- include "usage.mounts" . | nindent 2 }}
  {{- include "usage.secret-mounts" . | nindent 2 }}
{{- end }}
{{- end }}

{{/* It needs no key, so it gets no secret. */}}
{{- define "usage.dashboard" -}}
name: dashboard
image: {{ include "usage.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
args: [dashboard, -c, /etc/otel-openai-usage/dashboard.yaml, --host, 0.0.0.0, --port, {{ .Values.dashboard.port | quote }}]
{{- with .Values.extraEnv }}
env:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .Values.extraEnvFrom }}
envFrom:
  {{- toYaml . | nindent 2 }}
{{- end }}
ports:
  - {name: dashboard, containerPort: {{ .Values.dashboard.port }}}
# It waits for the exporter to make the state.
startupProbe:
  httpGet: {path: /healthz, port: dashboard}
  periodSeconds: 5
  failureThreshold: 120
livenessProbe:
  httpGet: {path: /healthz, port: dashboard}
  periodSeconds: 30
  timeoutSeconds: 5
resources:
  {{- toYaml .Values.dashboard.resources | nindent 2 }}
securityContext:
  {{- include "usage.container-security" . | nindent 2 }}
volumeMounts:
  {{- include "usage.mounts" . | nindent 2 }}
{{- end }}

{{/* The labels of one kind of pod: owner, standby or dashboard. */}}
{{- define "usage.pod-selector" -}}
{{ include "usage.selector" (index . 0) }}
app.kubernetes.io/component: {{ ternary "dashboard" "exporter" (eq (index . 1) "dashboard") }}
otel-openai-usage/role: {{ index . 1 }}
{{- end }}

{{/* The pod's template, with the containers of the list's second item, and its role. */}}
{{- define "usage.pod" -}}
{{- $root := index . 0 }}
{{- $containers := index . 1 }}
{{- $role := index . 2 }}
{{- with $root -}}
metadata:
  labels:
    {{- include "usage.pod-selector" (list . $role) | nindent 4 }}
    {{- with .Values.podLabels }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
  annotations:
    checksum/config: {{ include "usage.config" . | sha256sum }}
    {{- with .Values.podAnnotations }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
spec:
  automountServiceAccountToken: false
  {{- with .Values.serviceAccountName }}
  serviceAccountName: {{ . }}
  {{- end }}
  {{- with .Values.imagePullSecrets }}
  imagePullSecrets:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.priorityClassName }}
  priorityClassName: {{ . }}
  {{- end }}
  terminationGracePeriodSeconds: 30
  securityContext:
    runAsNonRoot: true
    runAsUser: 10001
    runAsGroup: 10001
    fsGroup: 10001
    seccompProfile: {type: RuntimeDefault}
  containers:
    {{- range $containers }}
    - {{ include (printf "usage.%s" .) $root | indent 6 | trim }}
    {{- end }}
  {{- with .Values.nodeSelector }}
  nodeSelector:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.tolerations }}
  tolerations:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- with .Values.affinity }}
  affinity:
    {{- toYaml . | nindent 4 }}
  {{- end }}
  {{- if .Values.topologySpreadConstraints }}
  topologySpreadConstraints:
    {{- toYaml .Values.topologySpreadConstraints | nindent 4 }}
  {{- else if .Values.state.postgresql.url }}
  topologySpreadConstraints:
    - maxSkew: 1
      topologyKey: kubernetes.io/hostname
      whenUnsatisfiable: ScheduleAnyway
      labelSelector:
        matchLabels:
          {{- include "usage.pod-selector" (list . $role) | nindent 10 }}
  {{- end }}
  volumes:
    - name: config
      configMap: {name: {{ include "usage.fullname" . }}}
    {{- with .Values.openai.existingSecret }}
    - name: key
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.webConfig.existingSecret }}
    - name: web
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- if .Values.events.enabled }}
    - name: events
      secret: {secretName: {{ .Values.events.existingSecret }}, defaultMode: 0440}
    {{- end }}
    {{- with .Values.state.postgresql.existingSecret }}
    - name: postgresql
      secret: {secretName: {{ . }}, defaultMode: 0440}
    {{- end }}
    {{- if and .Values.state.storage.existingClaim (not .Values.state.postgresql.url) }}
    - name: state
      persistentVolumeClaim: {claimName: {{ .Values.state.storage.existingClaim }}}
    {{- end }}
    - name: tmp
      emptyDir: {}
    {{- with .Values.extraVolumes }}
    {{- toYaml . | nindent 4 }}
    {{- end }}
{{- end }}
{{- end }}

{{/* One endpoint of a ServiceMonitor or a PodMonitor. */}}
{{- define "usage.endpoint" -}}
{{- $root := index . 0 }}
{{- $monitor := index . 1 -}}
port: metrics
path: {{ include "usage.metrics-path" $root }}
interval: {{ $monitor.interval }}
relabelings:
  - {targetLabel: job, replacement: openai} # the job that the alerts know
  {{- if not $root.Values.state.postgresql.url }}
  - {targetLabel: instance, replacement: {{ include "usage.fullname" $root }}} # a new pod continues the series of the last one
  {{- end }}
{{- if $root.Values.state.postgresql.url }}
# Usage goes on as the same series when another replica shows it. Own health keeps its instance.
metricRelabelings:
  - {sourceLabels: [__name__], regex: "(openai|gen_ai|chatgpt)_.*", targetLabel: instance, replacement: {{ include "usage.fullname" $root }}}
  {{- range tuple "pod" "node" "container" }}
  - {sourceLabels: [__name__], regex: "(openai|gen_ai|chatgpt)_.*", targetLabel: {{ . }}, replacement: ""}
  {{- end }}
{{- end }}
{{- with $monitor.endpoint }}
{{ toYaml . }}
{{- end }}
{{- end }}
