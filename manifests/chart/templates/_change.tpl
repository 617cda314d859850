{{- /* What values do to an object of files/. Each changes `object` in place and prints nothing. */ -}}
{{- define "lifeboat.change" -}}
{{- $object := .object -}}
{{- $values := .root.Values -}}
{{- $name := $object.metadata.name -}}
{{- if and (eq $object.kind "ConfigMap") (eq $name "lifeboat") -}}
{{- $_ := set $object "data" (merge (dict) $values.settings $object.data) -}}
{{- end -}}
{{- if eq $object.kind "ServiceAccount" -}}
{{- with get $values.serviceAccountAnnotations $name -}}
{{- $_ := set $object.metadata "annotations" (merge (dict) . ($object.metadata.annotations | default dict)) -}}
{{- end -}}
{{- end -}}
{{- if eq $object.kind "NetworkPolicy" -}}
{{- $_ := set $object.spec "egress" (concat $object.spec.egress $values.networkPolicy.egress) -}}
{{- end -}}
{{- if has $object.kind (list "DaemonSet" "Deployment") -}}
{{- include "lifeboat.image" (dict "template" $object.spec.template "values" $values) -}}
{{- end -}}
{{- if and (eq $object.kind "Deployment") (eq $name "lifeboat-fleet") -}}
{{- $container := index $object.spec.template.spec.containers 0 -}}
{{- $_ := set $container "env" (concat $container.env $values.fleet.env) -}}
{{- $metadata := $object.spec.template.metadata -}}
{{- $sum := dict "lifeboat.dev/settings" ($values.settings | toJson | sha256sum) -}}
{{- $_ := set $metadata "annotations" (merge $sum ($metadata.annotations | default dict)) -}}
{{- end -}}
{{- if eq $object.kind "DaemonSet" -}}
{{- /* The ConfigMap keeps its name, so a changed setting shows here: it rolls the pods. */ -}}
{{- $metadata := $object.spec.template.metadata -}}
{{- $sum := dict "lifeboat.dev/settings" ($values.settings | toJson | sha256sum) -}}
{{- $_ := set $metadata "annotations" (merge $sum ($metadata.annotations | default dict)) -}}
{{- include "lifeboat.agent" (dict "pod" $object.spec.template.spec "values" $values) -}}
{{- end -}}
{{- end -}}

{{- define "lifeboat.image" -}}
{{- $image := .values.image -}}
{{- $full := printf "%s:%s" $image.repository $image.tag -}}
{{- with $image.digest }}{{ $full = printf "%s@%s" $image.repository . }}{{ end -}}
{{- range .template.spec.containers -}}
{{- if hasPrefix "registry.invalid/lifeboat:" .image }}{{ $_ := set . "image" $full }}{{ end -}}
{{- end -}}
{{- end -}}

{{- define "lifeboat.agent" -}}
{{- $pod := .pod -}}
{{- $values := .values -}}
{{- $container := index $pod.containers 0 -}}
{{- range $key := list "env" "envFrom" "volumeMounts" -}}
{{- $_ := set $container $key (concat (get $container $key) (get $values $key)) -}}
{{- end -}}
{{- range $key := list "volumes" "tolerations" -}}
{{- $_ := set $pod $key (concat (get $pod $key) (get $values $key)) -}}
{{- end -}}
{{- with $values.resources }}{{ $_ := set $container "resources" . }}{{ end -}}
{{- with $values.seLinuxOptions }}{{ $_ := set $container.securityContext "seLinuxOptions" . }}{{ end -}}
{{- with $values.affinity }}{{ $_ := set $pod "affinity" . }}{{ end -}}
{{- if $values.hostNetwork -}}
{{- $_ := set $pod "hostNetwork" true -}}
{{- $_ := set $pod "dnsPolicy" "ClusterFirstWithHostNet" -}}
{{- end -}}
{{- with $values.settings.LIFEBOAT_ADMIN_ADDR -}}
{{- $_ := set (index $container.ports 0) "containerPort" (regexFind "[0-9]+$" . | int) -}}
{{- end -}}
{{- end -}}
