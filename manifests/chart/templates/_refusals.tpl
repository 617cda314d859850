{{- /* What the schema cannot say: values that contradict each other, or the cluster. */ -}}
{{- define "lifeboat.refusals" -}}
{{- $older := semverCompare "<1.36.0-0" .Capabilities.KubeVersion.Version -}}
{{- if and $older (not .Values.kubernetesBefore136) -}}
{{- fail (printf "kubernetesBefore136 is false, but this is Kubernetes %s, where every eviction would be refused: set kubernetesBefore136=true (helm template: --kube-version)" .Capabilities.KubeVersion.Version) -}}
{{- end -}}
{{- with .Values.settings.LIFEBOAT_IMPERSONATE_NODE -}}
{{- if ne . (ternary "false" "true" $.Values.kubernetesBefore136) -}}
{{- fail (printf "settings.LIFEBOAT_IMPERSONATE_NODE is %s, and the rights are for the opposite: leave it out and set kubernetesBefore136" .) -}}
{{- end -}}
{{- end -}}
{{- range $toleration := .Values.tolerations -}}
{{- $key := $toleration.key | default "" -}}
{{- if and (ne ($toleration.effect | default "") "NoExecute") (has $key (list "" "karpenter.sh/disrupted")) -}}
{{- fail (printf "tolerations: %s tolerates karpenter.sh/disrupted, and Karpenter then ends the instance without waiting for the agent: name the key of your own taint" (toJson $toleration)) -}}
{{- end -}}
{{- end -}}
{{- with .Values.resources -}}
{{- if ne (dig "requests" "memory" "" .) (dig "limits" "memory" "" .) -}}
{{- fail "resources: the memory limit must be the memory request: what the two minutes take is reserved before them" -}}
{{- end -}}
{{- end -}}
{{- end -}}
