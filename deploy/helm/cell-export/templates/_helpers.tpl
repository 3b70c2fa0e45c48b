{{/* Name of everything in this release. */}}
{{- define "cell-export.name" -}}
{{- $name := .Release.Name | trunc 40 | trimSuffix "-" -}}
{{- if contains .Chart.Name $name }}{{ $name }}{{ else }}{{ printf "%s-%s" $name .Chart.Name | trunc 45 | trimSuffix "-" }}{{ end -}}
{{- end }}

{{/* What selects pods: of one component, or of all with an empty one. Arguments: root, component. */}}
{{- define "cell-export.selector" -}}
app.kubernetes.io/name: {{ .root.Chart.Name }}
app.kubernetes.io/instance: {{ .root.Release.Name }}
{{- with .component }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end }}

{{/* Labels. Arguments: root, component. */}}
{{- define "cell-export.labels" -}}
{{ include "cell-export.selector" . }}
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version }}
{{- end }}

{{/* An image. Arguments: root, image. */}}
{{- define "cell-export.image" -}}
{{- $name := printf "%s%s" .root.Values.image.registry .image.repository -}}
{{- if .image.digest }}{{ $name }}@{{ .image.digest }}{{ else }}{{ $name }}:{{ .image.tag | default .root.Chart.AppVersion }}{{ end -}}
{{- end }}

{{- define "cell-export.serviceAccount" -}}
{{- if .Values.serviceAccount.create }}{{ .Values.serviceAccount.name | default (include "cell-export.name" .) }}{{ else }}{{ .Values.serviceAccount.name | default "default" }}{{ end -}}
{{- end }}

{{/* What every container may do: nothing. */}}
{{- define "cell-export.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities: { drop: [ALL] }
{{- end }}

{{- define "cell-export.podSecurity" -}}
runAsNonRoot: true
runAsUser: 10001
runAsGroup: 10001
fsGroup: 10001
fsGroupChangePolicy: OnRootMismatch
seccompProfile: { type: RuntimeDefault }
{{- end }}

{{/* The keys of a component's Secret that it uses. Arguments: root, component, values. */}}
{{- define "cell-export.secretKeys" -}}
{{- $keys := .values.secretKeys -}}
{{- if and (eq .root.Values.storage.kind "s3") .root.Values.storage.s3.keysInSecrets }}{{ $keys = concat $keys (list "S3_ACCESS_KEY_ID" "S3_SECRET_ACCESS_KEY") }}{{ end -}}
{{- $keys | uniq | toJson -}}
{{- end }}

{{/* A value as text. Numbers of values are floats, and 1073741824 would be 1.073741824e+09. */}}
{{- define "cell-export.text" -}}
{{- if and (kindIs "float64" .) (eq (float64 (int64 .)) .) }}{{ int64 . }}{{ else }}{{ . }}{{ end -}}
{{- end }}

{{/* The settings of a service. Arguments: root, component, values. */}}
{{- define "cell-export.environment" -}}
{{- $values := .root.Values -}}
{{- $settings := dict
  "UNIT_SCHEME" $values.unit.scheme
  "UNIT_FQDN" $values.unit.fqdn
  "PATH_BASED_CELL_URL" $values.unit.pathBased
  "LOG_FORMAT" "json"
  "INTERNAL_LISTEN" "0.0.0.0:9090"
  "SCRATCH_DIR" "/var/lib/cell-export/scratch" -}}
{{- with $values.unit.port }}{{ $_ := set $settings "UNIT_PORT" . }}{{ end -}}
{{- with $values.traces.endpoint }}{{ $_ := set $settings "OTEL_EXPORTER_OTLP_ENDPOINT" . }}{{ end -}}
{{- if eq .component "api" -}}
{{- $_ := set $settings "API_LISTEN" "0.0.0.0:8080" -}}
{{- else -}}
{{- $_ := set $settings "WORKER_SLOTS" .values.slots -}}
{{- $_ := set $settings "DRAIN_SECS" .values.drainSeconds -}}
{{- end -}}
{{- if eq $values.storage.kind "s3" -}}
{{- $s3 := $values.storage.s3 -}}
{{- $_ := set $settings "STORAGE" "s3" -}}
{{- with $s3.endpoint }}{{ $_ := set $settings "S3_ENDPOINT" . }}{{ end -}}
{{- $_ := set $settings "S3_BUCKET" $s3.bucket -}}
{{- $_ := set $settings "S3_REGION" $s3.region -}}
{{- $_ := set $settings "S3_PATH_STYLE" $s3.pathStyle -}}
{{- $_ := set $settings "S3_ALLOW_HTTP" $s3.allowHttp -}}
{{- if eq .component "api" }}{{ $_ := set $settings "S3_DOWNLOADS" $s3.downloads }}{{ end -}}
{{- else -}}
{{- $_ := set $settings "STORAGE" "directory" -}}
{{- $_ := set $settings "STORAGE_SHARED" "true" -}}
{{- $_ := set $settings "SNAPSHOT_DIR" "/var/lib/cell-export/snapshots" -}}
{{- if ne .component "api" }}{{ $_ := set $settings "BLOB_DIR" "/var/lib/cell-export/blobs" }}{{ end -}}
{{- end -}}
{{- range $name, $value := mergeOverwrite $settings .values.settings }}
- { name: {{ $name }}, value: {{ include "cell-export.text" $value | quote }} }
{{- end }}
{{- range include "cell-export.secretKeys" . | fromJsonArray }}
- { name: {{ . }}_FILE, value: /run/secrets/cell-export/{{ . }} }
{{- end }}
{{- end }}

{{/* A container of a service. Arguments: root, component, values, image, command. */}}
{{- define "cell-export.container" -}}
name: {{ .component }}
image: {{ include "cell-export.image" . | quote }}
imagePullPolicy: {{ .root.Values.image.pullPolicy }}
args: [{{ .command }}]
securityContext: {{- include "cell-export.containerSecurity" . | nindent 2 }}
env: {{- include "cell-export.environment" . | nindent 2 }}
resources: {{- toYaml .values.resources | nindent 2 }}
volumeMounts:
  - { name: secrets, mountPath: /run/secrets/cell-export, readOnly: true }
  - { name: scratch, mountPath: /var/lib/cell-export/scratch }
  {{- if eq .root.Values.storage.kind "directory" }}
  - { name: snapshots, mountPath: /var/lib/cell-export/snapshots }
  {{- if ne .component "api" }}
  - { name: blobs, mountPath: /var/lib/cell-export/blobs }
  {{- end }}
  {{- end }}
{{- end }}

{{/* What surrounds containers in a pod of a service. Arguments: root, component, values. */}}
{{- define "cell-export.pod" -}}
serviceAccountName: {{ include "cell-export.serviceAccount" .root }}
{{- /* Nothing here talks to Kubernetes. */}}
automountServiceAccountToken: false
{{- /* Services of the namespace would set variables such as UNIT_PORT, if one is called unit. */}}
enableServiceLinks: false
securityContext: {{- include "cell-export.podSecurity" . | nindent 2 }}
{{- with .root.Values.image.pullSecrets }}
imagePullSecrets:
  {{- range . }}
  - { name: {{ . }} }
  {{- end }}
{{- end }}
{{- with .values.priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- with .values.nodeSelector }}
nodeSelector: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.tolerations }}
tolerations: {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .values.affinity }}
affinity: {{- toYaml . | nindent 2 }}
{{- end }}
topologySpreadConstraints:
{{- with .values.topologySpreadConstraints }}
  {{- toYaml . | nindent 2 }}
{{- else }}
  - topologyKey: kubernetes.io/hostname
    maxSkew: 1
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels: {{- include "cell-export.selector" . | nindent 8 }}
{{- end }}
volumes:
  - name: secrets
    secret:
      secretName: {{ .values.secret }}
      defaultMode: 0440
      items:
        {{- range include "cell-export.secretKeys" . | fromJsonArray }}
        - { key: {{ . }}, path: {{ . }} }
        {{- end }}
  - name: scratch
    {{- if .values.scratch.storageClass }}
    ephemeral:
      volumeClaimTemplate:
        spec:
          accessModes: [ReadWriteOnce]
          storageClassName: {{ .values.scratch.storageClass }}
          resources: { requests: { storage: {{ .values.scratch.size }} } }
    {{- else }}
    emptyDir: { sizeLimit: {{ .values.scratch.size }} }
    {{- end }}
  {{- if eq .root.Values.storage.kind "directory" }}
  - name: snapshots
    persistentVolumeClaim: { claimName: {{ .root.Values.storage.directory.snapshotsClaim }} }
  {{- if ne .component "api" }}
  - name: blobs
    persistentVolumeClaim: { claimName: {{ .root.Values.storage.directory.blobsClaim }} }
  {{- end }}
  {{- end }}
{{- end }}
