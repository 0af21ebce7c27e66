{{- /* What a schema cannot say: combinations that would start and then harm. The control plane's template asks first. */ -}}
{{- define "shisuan.refusals" -}}
{{- with .Values.controlPlane -}}
{{- if and (gt (int .replicas) 1) (not .election.enabled) -}}
{{- fail "controlPlane.replicas: more than one needs controlPlane.election.enabled; without it they would take the database from each other. Valid: 0, 1" -}}
{{- end -}}
{{- if .election.enabled -}}
{{- if not $.Values.database.secret -}}
{{- fail "database.secret: controlPlane.election needs PostgreSQL; SQLite lies in the home of one pod" -}}
{{- end -}}
{{- if not .operatorKey.secret -}}
{{- fail "controlPlane.operatorKey.secret: controlPlane.election needs a key that all pods know; make one with 'kubectl create secret generic NAME --from-literal=key=sk-$(openssl rand -hex 32)'" -}}
{{- end -}}
{{- if not (has "leader" $.Values.rbac.parts) -}}
{{- fail "rbac.parts: controlPlane.election needs leader, the right to write a Lease and an EndpointSlice" -}}
{{- end -}}
{{- if and .config.feed (not (dig "feed" "key_file" "" .config)) -}}
{{- fail "controlPlane.config.feed.key_file: controlPlane.election needs a signing key that all pods have, from controlPlane.configSecret" -}}
{{- end -}}
{{- range .config.tenants -}}
{{- if or (not .roots) (has "own" .roots) -}}
{{- fail (printf "controlPlane.config.tenants: %s: needs roots on storage.claims; with controlPlane.election the pods have no folder in common" .name) -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- end -}}
{{- if and .Values.controlPlane.configSecret (not .Values.controlPlane.config) -}}
{{- fail "controlPlane.configSecret: its files lie beside the configuration file, and controlPlane.config is empty" -}}
{{- end -}}
{{- if and .Values.monitoring.enabled (not .Values.monitoring.key.secret) -}}
{{- fail "monitoring.key.secret: /metrics asks for a key; make one with 'shisuan keys create --tenant default --figures' and put it into a Secret" -}}
{{- end -}}
{{- if .Values.oidc.enabled -}}
{{- if .Values.controlPlane.config.oidc -}}
{{- fail "controlPlane.config.oidc: oidc.enabled writes this section; move what it says to oidc" -}}
{{- end -}}
{{- if and .Values.oidc.clientId (not .Values.ingress.enabled) (not .Values.oidc.settings.redirect_url) -}}
{{- fail "oidc.clientId: a sign-in needs an address to come back to: enable ingress, or say oidc.settings.redirect_url" -}}
{{- end -}}
{{- end -}}
{{- if .Values.lanes.enabled -}}
{{- range list "inventory" "lanes" -}}
{{- if not (has . $.Values.rbac.parts) -}}
{{- fail (printf "rbac.parts: lanes.enabled needs the part %q" .) -}}
{{- end -}}
{{- end -}}
{{- if not .Values.lanes.images -}}
{{- fail "lanes.images: name an image by kind of step, or default; for example --set lanes.images.default=registry.example/shisuan/blender:0.3.0" -}}
{{- end -}}
{{- if ne (empty .Values.lanes.tls.secret) (empty .Values.lanes.tls.caConfigMap) -}}
{{- fail "lanes.tls: secret and caConfigMap go together: bridges must know whom to trust" -}}
{{- end -}}
{{- end -}}
{{- range .Values.storage.claims -}}
{{- if or (hasPrefix "/var/lib/shisuan" .path) (hasPrefix "/etc/shisuan" .path) (eq "/tmp" .path) -}}
{{- fail (printf "storage.claims: %s: the service's own files lie there; choose another path" .path) -}}
{{- end -}}
{{- end -}}
{{- end -}}
