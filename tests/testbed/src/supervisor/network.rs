//! Hosts as network namespaces on one bridge, which is in a namespace of its own: nothing is routed outside.

use super::process::line;
use crate::layout::{API, CONTROL_PLANE, Place, SERVICES};
use anyhow::Result;
use std::net::Ipv4Addr;
use std::sync::{Mutex, PoisonError};

/// The network of one testbed.
#[derive(Debug)]
pub struct Network {
    /// The nodes so far: each knows the way to the pods of the others.
    nodes: Mutex<Vec<(String, Place)>>,
}

impl Network {
    pub fn new() -> Result<Self> {
        line("ip netns add fabric")?;
        line("ip -n fabric link add br0 type bridge")?;
        line("ip -n fabric link set br0 up")?;
        Ok(Self { nodes: Mutex::default() })
    }

    /// A host with this address.
    pub fn host(&self, name: &str, address: Ipv4Addr) -> Result<()> {
        line(&format!("ip netns add {name}"))?;
        line(&format!("ip -n fabric link add v-{name} type veth peer name eth0 netns {name}"))?;
        line(&format!("ip -n fabric link set v-{name} master br0 up"))?;
        line(&format!("ip -n {name} link set lo up"))?;
        line(&format!("ip -n {name} link set eth0 up"))?;
        line(&format!("ip -n {name} addr add {address}/24 dev eth0"))?;
        if address == CONTROL_PLANE {
            // The in-cluster address works without kube-proxy.
            line(&format!("ip -n {name} addr add {API}/32 dev lo"))?;
        }
        Ok(())
    }

    /// A host that has pods.
    pub fn node(&self, name: &str, place: Place) -> Result<()> {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        self.host(name, place.address())?;
        // Of all Services: kube-proxy is asked only where there is a way at all. The API server's needs no kube-proxy.
        line(&format!("ip -n {name} route add {SERVICES} via {CONTROL_PLANE}"))?;
        line(&format!("nsenter --net=/run/netns/{name} sysctl -qw net.ipv4.ip_forward=1"))?;
        // The metadata service listens here: the agent finds it where EC2 has it.
        line(&format!("ip -n {name} addr add 169.254.169.254/32 dev lo"))?;
        for (other, there) in nodes.iter() {
            line(&format!("ip -n {other} route add {} via {}", place.pods(), place.address()))?;
            line(&format!("ip -n {name} route add {} via {}", there.pods(), there.address()))?;
        }
        for host in ["cp", "s3"] {
            line(&format!("ip -n {host} route add {} via {}", place.pods(), place.address()))?;
        }
        nodes.push((name.to_owned(), place));
        Ok(())
    }

    /// Cuts or mends a host's link: peers see silence, not a closed connection.
    pub fn link(&self, host: &str, up: bool) -> Result<()> {
        let state = if up { "up" } else { "down" };
        line(&format!("ip -n fabric link set v-{host} {state}"))?;
        Ok(())
    }

    /// Bounds what a host can send, in bits per second.
    pub fn uplink(&self, host: &str, rate: Option<u64>) -> Result<()> {
        // There may be none.
        let _ = line(&format!("tc -n {host} qdisc del dev eth0 root"));
        if let Some(rate) = rate {
            // The burst is what goes out in 10 ms, and one large packet at least.
            let burst = (rate / 8 / 100).max(64 * 1024);
            line(&format!(
                "tc -n {host} qdisc add dev eth0 root tbf rate {rate}bit burst {burst} latency 200ms"
            ))?;
        }
        Ok(())
    }
}
