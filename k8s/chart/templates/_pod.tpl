{{- define "shisuan.image" -}}
image: {{ printf "%s:%s" .Values.image.repository (.Values.image.tag | default .Chart.AppVersion) | quote }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
{{- end -}}

{{- define "shisuan.pull-secrets" -}}
{{- with .Values.image.pullSecrets }}
imagePullSecrets:
{{- range . }}
  - name: {{ . }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Every pod of ours: nobody is root, nobody becomes it, nothing of the image can be changed. */ -}}
{{- define "shisuan.pod-security" -}}
securityContext:
  runAsNonRoot: true
  runAsUser: 10001
  runAsGroup: 10001
  fsGroup: 10001
  fsGroupChangePolicy: OnRootMismatch
  seccompProfile: {type: RuntimeDefault}
{{- end -}}

{{- define "shisuan.container-security" -}}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
{{- end -}}

{{- define "shisuan.database-env" -}}
{{- with .Values.database }}
{{- if .secret }}
- name: SHISUAN_DATABASE_URL
  valueFrom:
    secretKeyRef: {name: {{ .secret }}, key: {{ .key }}}
{{- end }}
{{- end }}
{{- end -}}

{{- define "shisuan.storage-env" -}}
{{- with .Values.storage.s3 }}
{{- if .endpoint }}
- {name: AWS_ENDPOINT_URL_S3, value: {{ .endpoint | quote }}}
{{- end }}
{{- if .region }}
- {name: AWS_REGION, value: {{ .region | quote }}}
{{- end }}
{{- if .secret }}
{{- range list "AWS_ACCESS_KEY_ID" "AWS_SECRET_ACCESS_KEY" }}
- name: {{ . }}
  valueFrom:
    secretKeyRef: {name: {{ $.Values.storage.s3.secret }}, key: {{ . }}}
{{- end }}
{{- end }}
{{- end }}
{{- end -}}

{{- /* Ray, Numba and others want a home they may write. */ -}}
{{- define "shisuan.env" -}}
- {name: HOME, value: /var/lib/shisuan}
- {name: SHISUAN_HOME, value: /var/lib/shisuan} # for the command, in `kubectl exec`
- {name: NUMBA_CACHE_DIR, value: "/var/lib/shisuan/kernels/{{ .Chart.AppVersion }}"}
{{- end -}}
