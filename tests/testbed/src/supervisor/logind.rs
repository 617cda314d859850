//! A node's logind: a real message bus, and what a kubelet needs of systemd (tests/testbed/logind.py).

use super::World;
use super::process::Recipe;
use crate::parts::repository;
use anyhow::Result;
use std::time::Duration;

/// A bus for one node alone: who is on it may do everything.
const BUS: &str = r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-BUS Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>ADDRESS</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow user="*"/>
    <allow own="*"/>
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
  </policy>
</busconfig>
"#;

/// Starts both; the bus's address.
pub fn start(world: &World, node: &str) -> Result<String> {
    let folder = world.folder.node(node).join("logind");
    std::fs::create_dir_all(&folder)?;
    // Of an earlier boot.
    for left in ["bus", "ready", "released"] {
        let _ = std::fs::remove_file(folder.join(left));
    }
    let address = format!("unix:path={}", folder.join("bus").display());
    std::fs::write(folder.join("bus.conf"), BUS.replace("ADDRESS", &address))?;
    let limit = Duration::from_secs(30);
    let bus = format!("bus-{node}");
    let config = format!("--config-file={}", folder.join("bus.conf").display());
    world.processes.start(Recipe::new(&bus, node, ["dbus-daemon", "--nofork", "--nopidfile", &config]))?;
    world.processes.until(&bus, limit, || folder.join("bus").exists())?;
    let logind = format!("logind-{node}");
    let command = [
        world.plan.parts.python.as_os_str().to_owned(),
        repository().join("tests/testbed/logind.py").into(),
        (&address).into(),
        folder.as_os_str().to_owned(),
    ];
    world.processes.start(Recipe::new(&logind, node, command))?;
    world.processes.until(&logind, limit, || folder.join("ready").exists())?;
    Ok(address)
}
