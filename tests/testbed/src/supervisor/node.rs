//! A node: containerd, kubelet, kube-proxy and a metadata service in one network namespace.

use super::World;
use super::process::{Recipe, line, run};
use crate::layout::{Folder, NodeOptions, Place, REGISTRY_PORT, S3, SHUTDOWN};
use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill as send};
use nix::unistd::Pid;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// A node and where it is in the network.
#[derive(Clone, Debug)]
pub struct Node {
    pub options: NodeOptions,
    pub place: Place,
}

impl Node {
    fn name(&self) -> &str {
        &self.options.name
    }

    /// The parent of its containers' cgroups, below each hierarchy.
    fn cgroup(&self, world: &World) -> String {
        format!("/lifeboat-testbed/{}/{}", world.plan.name, self.name())
    }
}

/// Its folder, its network and its configuration.
pub fn install(world: &World, node: &Node) -> Result<()> {
    world.network.node(node.name(), node.place)?;
    let folder = world.folder.node(node.name());
    for below in ["containerd", "state", "kubelet", "cni/net.d", "static", "lifeboat", "logs"] {
        std::fs::create_dir_all(folder.join(below))?;
    }
    let at = folder.display();
    // CNI plugins write a pod's addresses here; masquerading would hide who asked.
    std::fs::write(
        folder.join("cni/net.d/10-pods.conflist"),
        serde_json::json!({"cniVersion": "0.4.0", "name": "pods", "plugins": [{
            "type": "bridge", "bridge": "cni0", "isGateway": true, "ipMasq": false,
            "ipam": {"type": "host-local", "dataDir": folder.join("cni/ipam"),
                "ranges": [[{"subnet": node.place.pods()}]], "routes": [{"dst": "0.0.0.0/0"}]},
        }]})
        .to_string(),
    )?;
    std::fs::write(
        folder.join("containerd.toml"),
        format!(
            r#"version = 2
root = "{at}/containerd"
state = "{at}/state"
[grpc]
  address = "{at}/containerd.sock"
[plugins."io.containerd.grpc.v1.cri"]
  # Lowering it is not permitted in every sandbox; without this each pod then fails (measured: runc 1.1).
  restrict_oom_score_adj = true
  sandbox_image = "registry.local/pause:1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "{at}/cni/net.d"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
  [plugins."io.containerd.grpc.v1.cri".registry.mirrors."{S3}:{REGISTRY_PORT}"]
    endpoint = ["http://{S3}:{REGISTRY_PORT}"]
[plugins."io.containerd.internal.v1.opt"]
  path = "{at}/opt"
"#
        ),
    )?;
    let mut kubelet = serde_json::json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "authentication": {"anonymous": {"enabled": false}, "webhook": {"enabled": true},
            "x509": {"clientCAFile": world.folder.path("pki/ca.crt")}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupsPerQOS": false,
        "cgroupRoot": node.cgroup(world),
        "enforceNodeAllocatable": [],
        "cgroupDriver": "cgroupfs",
        "failCgroupV1": false,
        "failSwapOn": false,
        "containerRuntimeEndpoint": format!("unix://{at}/containerd.sock"),
        "staticPodPath": folder.join("static"),
        "podLogsDir": folder.join("logs"),
        "syncFrequency": "10s",
        "nodeStatusUpdateFrequency": "5s",
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {"memory.available": "1Mi", "nodefs.available": "0%", "imagefs.available": "0%",
            "nodefs.inodesFree": "0%"},
        "evictionMonitorPeriod": "2s",
        "registerNode": true,
        "localStorageCapacityIsolation": node.options.isolation,
        "maxPods": 200,
    });
    if node.options.holds_shutdown {
        kubelet["shutdownGracePeriod"] = format!("{}s", SHUTDOWN.0).into();
        kubelet["shutdownGracePeriodCriticalPods"] = format!("{}s", SHUTDOWN.1).into();
    }
    std::fs::write(folder.join("kubelet.json"), kubelet.to_string())?;
    Ok(())
}

/// Starts it, under a new boot id.
pub fn boot(world: &World, node: &Node) -> Result<()> {
    let name = node.name();
    let folder = world.folder.node(name);
    let processes = &world.processes;
    world.network.link(name, true)?;
    let id = fastrand::u128(..);
    std::fs::write(
        folder.join("boot_id"),
        format!(
            "{:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}\n",
            id >> 96,
            id >> 80 & 0xffff,
            id >> 64 & 0xfff,
            id >> 48 & 0xfff,
            id & 0xffff_ffff_ffff
        ),
    )?;
    let metadata = match &node.options.mock {
        Some(arguments) => {
            let mut command = vec![world.plan.parts.metadata_mock.display().to_string()];
            command.extend(["--hostname", "169.254.169.254", "--port", "80"].map(str::to_owned));
            command.extend(arguments.iter().cloned());
            Recipe::new(&format!("metadata-{name}"), name, command)
        }
        None => {
            let life = if node.options.on_demand { "on-demand" } else { "spot" };
            let command =
                [world.plan.testbed.as_os_str().to_owned(), "metadata".into(), name.into(), life.into()];
            Recipe::new(&format!("metadata-{name}"), name, command)
        }
    };
    processes.start(metadata)?;

    if !folder.join("filled").exists() {
        let of_every_node = |image: &Path| {
            let name = image.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with("pause-") || name.starts_with("lifeboat-")
        };
        let images: Vec<&Path> = world
            .plan
            .images
            .iter()
            .map(PathBuf::as_path)
            .filter(|image| !node.options.lean || of_every_node(image))
            .collect();
        let outside = Folder::outside(&world.plan.name).node(name);
        super::store::fill(world, name, &images, &outside.join("containerd"))?;
        std::fs::write(folder.join("filled"), "")?;
    }
    let socket = folder.join("containerd.sock");
    let containerd = format!("containerd-{name}");
    let config = folder.join("containerd.toml");
    processes.start(Recipe::new(
        &containerd,
        name,
        ["containerd".into(), "-c".into(), config.into_os_string()],
    ))?;
    let answers = || {
        run(["ctr".as_ref(), "-a".as_ref(), socket.as_os_str(), "version".as_ref()] as [&OsStr; 4]).is_ok()
    };
    processes.until(&containerd, Duration::from_secs(30), answers)?;
    let capacity = if node.options.on_demand { "ON_DEMAND" } else { "SPOT" };
    let mut labels = vec![
        format!("eks.amazonaws.com/capacityType={capacity}"),
        format!("topology.kubernetes.io/zone=testbed-1{}", &name[name.len() - 1..]),
    ];
    labels.extend(node.options.labels.iter().cloned());
    let kubernetes = &world.plan.parts.kubernetes;
    let kubeconfig = world.folder.kubeconfig(name);
    // Until the API server answers there is nothing to register with: it backs off for seconds.
    let api = std::time::Instant::now();
    while !super::control_plane::listens("cp", (crate::layout::API, 443).into())
        && api.elapsed() < Duration::from_secs(120)
    {
        std::thread::sleep(Duration::from_millis(200));
    }
    // Every kubelet listens for device plugins in /var/lib/kubelet, whatever its root is: each sees one of its own. What
    // it mounts below its root is shared with the containerd outside all the same.
    let own = "mount -t tmpfs none /var/lib/kubelet && exec \"$@\"";
    let kubelet = [
        "unshare".to_owned(),
        "--mount".into(),
        "--propagation=unchanged".into(),
        "sh".into(),
        "-c".into(),
        own.into(),
        "kubelet".into(),
        kubernetes.join("kubelet").display().to_string(),
        format!("--config={}", folder.join("kubelet.json").display()),
        format!("--kubeconfig={}", kubeconfig.display()),
        format!("--hostname-override={name}"),
        format!("--root-dir={}", folder.join("kubelet").display()),
        format!("--cert-dir={}", folder.join("kubelet/pki").display()),
        format!("--node-ip={}", node.place.address()),
        format!("--node-labels={}", labels.join(",")),
        "--v=2".into(),
    ];
    let mut kubelet = Recipe::new(&format!("kubelet-{name}"), name, kubelet);
    if node.options.holds_shutdown {
        kubelet = kubelet.env("DBUS_SYSTEM_BUS_ADDRESS", super::logind::start(world, name)?);
    }
    processes.start(kubelet)?;
    let proxy = [
        kubernetes.join("kube-proxy").display().to_string(),
        format!("--kubeconfig={}", world.folder.kubeconfig("admin").display()),
        "--proxy-mode=nftables".into(),
        format!("--hostname-override={name}"),
        "--cluster-cidr=10.88.0.0/16".into(),
        "--conntrack-max-per-core=0".into(),
        "--conntrack-tcp-timeout-established=0".into(),
        "--conntrack-tcp-timeout-close-wait=0".into(),
    ];
    processes.start(Recipe::new(&format!("kube-proxy-{name}"), name, proxy))
}

/// Power off.
pub fn kill(world: &World, node: &Node) -> Result<()> {
    let name = node.name();
    // Silence first: nobody hears a connection close.
    world.network.link(name, false)?;
    for process in world.processes.of(name) {
        world.processes.signal(&process, Signal::SIGKILL)?;
    }
    let began = Instant::now();
    let socket = world.folder.node(name).join("containerd.sock");
    loop {
        let mut left = shims(&socket);
        left.extend(members(&node.cgroup(world)));
        if left.is_empty() {
            break;
        }
        if began.elapsed() > Duration::from_secs(10) {
            bail!("processes of {name} do not end: {left:?}");
        }
        for pid in left {
            // It may have ended just now.
            let _ = send(Pid::from_raw(pid), Signal::SIGKILL);
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    // What a boot would find unmounted.
    for below in ["state", "kubelet"] {
        unmount_below(&world.folder.node(name).join(below));
    }
    for space in line("ip netns list").unwrap_or_default().lines().filter(|line| line.starts_with("cni-")) {
        let space = space.split(' ').next().unwrap_or_default();
        // The other nodes' pods have processes in theirs.
        if line(&format!("ip netns pids {space}")).is_ok_and(|pids| pids.trim().is_empty()) {
            let _ = line(&format!("ip netns del {space}"));
        }
    }
    let _ = std::fs::remove_dir_all(world.folder.node(name).join("cni/ipam"));
    Ok(())
}

/// The shims that a containerd left.
fn shims(socket: &Path) -> BTreeSet<i32> {
    let Ok(all) = std::fs::read_dir("/proc") else { return BTreeSet::new() };
    let ours = |pid: i32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).into_owned();
        line.contains("containerd-shim") && line.contains(&socket.display().to_string())
    };
    all.flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| ours(*pid))
        .collect()
}

/// The processes below a cgroup, in the hierarchy that knows them all.
fn members(cgroup: &str) -> BTreeSet<i32> {
    let mut found = BTreeSet::new();
    for root in ["/sys/fs/cgroup/pids", "/sys/fs/cgroup"] {
        let mut folders: Vec<PathBuf> = vec![PathBuf::from(format!("{root}{cgroup}"))];
        while let Some(folder) = folders.pop() {
            let text = std::fs::read_to_string(folder.join("cgroup.procs")).unwrap_or_default();
            found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()).filter(|pid| *pid > 0));
            let below = std::fs::read_dir(&folder).into_iter().flatten().flatten();
            folders.extend(
                below
                    .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
                    .map(|entry| entry.path()),
            );
        }
    }
    found
}

fn unmount_below(folder: &Path) {
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let below =
        |line: &str| line.split(' ').nth(1).map(PathBuf::from).filter(|path| path.starts_with(folder));
    let mut paths: Vec<PathBuf> = mounts.lines().filter_map(below).collect();
    paths.sort();
    for path in paths.iter().rev() {
        let _ = nix::mount::umount2(path, nix::mount::MntFlags::MNT_DETACH);
    }
}

/// Pushes an image into the registry.
pub fn publish(world: &World, node: &Node, image: &str, name: &str) -> Result<()> {
    let socket = world.folder.node(node.name()).join("containerd.sock");
    let there = format!("{S3}:{REGISTRY_PORT}/{name}");
    let ctr =
        format!("nsenter --net=/run/netns/{} ctr -a {} -n k8s.io images", node.name(), socket.display());
    line(&format!("{ctr} tag --force {image} {there}"))?;
    line(&format!("{ctr} push --plain-http {there}"))?;
    // The name alone: a pod that asks for it pulls it.
    line(&format!("{ctr} rm {there}")).map(drop)
}

/// Signals the first process of a container.
pub fn kill_container(folder: &Folder, node: &Node, id: &str, signal: i32) -> Result<()> {
    let socket = folder.node(node.name()).join("containerd.sock");
    let socket = socket.display();
    let tasks = line(&format!("ctr -a {socket} -n k8s.io tasks ls"))?;
    let pid = tasks.lines().find_map(|line| {
        let mut words = line.split_whitespace();
        (words.next() == Some(id)).then(|| words.next()?.parse::<i32>().ok())?
    });
    let pid = pid.with_context(|| format!("{} runs no container {id}", node.name()))?;
    send(Pid::from_raw(pid), Signal::try_from(signal)?)?;
    Ok(())
}
