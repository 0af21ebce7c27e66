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

{{- /* Ray, Numba and others want a home they may write. */ -}}
{{- define "shisuan.env" -}}
- {name: HOME, value: /var/lib/shisuan}
- {name: SHISUAN_HOME, value: /var/lib/shisuan} # for the command, in `kubectl exec`
- {name: NUMBA_CACHE_DIR, value: "/var/lib/shisuan/kernels/{{ .Chart.AppVersion }}"}
{{- end -}}
