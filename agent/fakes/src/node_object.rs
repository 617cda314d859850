//! The Node object of a stand-in kubelet, as a kubelet on EC2 registers it.

use serde_json::{Value, json};

/// The Node object.
pub fn node_object(name: &str, capacity: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Node",
        "metadata": {"name": name, "annotations": {}, "labels": {"kubernetes.io/hostname": name, "kubernetes.io/os": "linux",
            "topology.kubernetes.io/zone": "us-east-1a", "eks.amazonaws.com/capacityType": capacity}},
        "spec": {"providerID": format!("aws:///us-east-1a/i-{name}")},
        "status": {"conditions": [{"type": "Ready", "status": "True", "reason": "KubeletReady"}],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "nodeInfo": {"kubeletVersion": "v1.33.6", "architecture": "amd64", "operatingSystem": "linux", "bootID": "",
                "containerRuntimeVersion": "containerd://2.1.4", "kernelVersion": "6.12", "kubeProxyVersion": "",
                "machineID": "", "osImage": "drill", "systemUUID": ""}},
    })
}
