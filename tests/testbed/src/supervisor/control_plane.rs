//! etcd, API server, controllers and scheduler.

use super::World;
use super::process::Recipe;
use crate::layout::{CONTROL_PLANE, SERVICES};
use anyhow::Result;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

/// Who changed what, with the body of what an agent or a person writes, and all that lifeboat's own accounts ask, watches
/// when they begin; reads of controllers are left out.
const AUDIT: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:kube-controller-manager", "system:kube-scheduler", "system:apiserver"]
  verbs: [get, list, watch]
- level: None
  userGroups: ["system:nodes", "system:serviceaccounts:kube-system"]
  verbs: [get, list, watch]
- level: Metadata
  userGroups: ["system:serviceaccounts:lifeboat-system"]
  verbs: [get, list, watch]
- level: Request
  userGroups: ["system:serviceaccounts:lifeboat-system"]
- level: None
  resources: [{group: coordination.k8s.io}, {group: "", resources: ["serviceaccounts/token"]}]
- level: None
  userGroups: ["system:nodes"]
  resources: [{group: "", resources: [nodes/status, events]}]
- level: Request
  verbs: [create, update, patch, delete, deletecollection]
  omitStages: [ResponseStarted]
- level: Metadata
  omitStages: [ResponseStarted]
"#;

/// Starts them; returns when the API server is ready.
pub fn start(world: &World) -> Result<()> {
    let folder = &world.folder;
    let bin = |name: &str| world.plan.parts.kubernetes.join(name).display().to_string();
    let pki = |file: &str| folder.path("pki").join(file).display().to_string();
    std::fs::write(folder.path("audit-policy.yaml"), AUDIT)?;

    let etcd = [
        bin("etcd"),
        format!("--data-dir={}", folder.path("etcd").display()),
        // Nothing here has to survive the machine.
        "--unsafe-no-fsync".into(),
        "--listen-client-urls=http://127.0.0.1:2379".into(),
        "--advertise-client-urls=http://127.0.0.1:2379".into(),
        "--listen-peer-urls=http://127.0.0.1:2380".into(),
        "--log-level=error".into(),
    ];
    world.processes.start(Recipe::new("etcd", "cp", etcd))?;

    let apiserver = [
        bin("kube-apiserver"),
        "--etcd-servers=http://127.0.0.1:2379".into(),
        "--secure-port=443".into(),
        format!("--advertise-address={CONTROL_PLANE}"),
        format!("--service-cluster-ip-range={SERVICES}"),
        format!("--tls-cert-file={}", pki("api.crt")),
        format!("--tls-private-key-file={}", pki("api.key")),
        format!("--client-ca-file={}", pki("ca.crt")),
        format!("--kubelet-client-certificate={}", pki("kubelet-client.crt")),
        format!("--kubelet-client-key={}", pki("kubelet-client.key")),
        // There is no DNS here.
        "--kubelet-preferred-address-types=InternalIP".into(),
        format!("--token-auth-file={}", pki("tokens.csv")),
        "--authorization-mode=Node,RBAC".into(),
        "--enable-admission-plugins=NodeRestriction,Priority".into(),
        format!("--service-account-key-file={}", pki("sa.pub")),
        format!("--service-account-signing-key-file={}", pki("sa.key")),
        "--service-account-issuer=https://kubernetes.default.svc".into(),
        "--endpoint-reconciler-type=lease".into(),
        format!("--audit-policy-file={}", folder.path("audit-policy.yaml").display()),
        format!("--audit-log-path={}", folder.path("log/audit.jsonl").display()),
        "--audit-log-mode=blocking".into(),
        // One file, whatever a storm writes.
        "--audit-log-maxsize=4000".into(),
        "--allow-privileged=true".into(),
        "--profiling=true".into(),
    ];
    world.processes.start(Recipe::new("kube-apiserver", "cp", apiserver))?;
    let config = |user: &str| folder.kubeconfig(user).display().to_string();
    let (controllers, scheduler) = (config("controller-manager"), config("scheduler"));
    let controller_manager = [
        bin("kube-controller-manager"),
        format!("--kubeconfig={controllers}"),
        format!("--authentication-kubeconfig={controllers}"),
        format!("--authorization-kubeconfig={controllers}"),
        format!("--service-account-private-key-file={}", pki("sa.key")),
        format!("--root-ca-file={}", pki("ca.crt")),
        "--use-service-account-credentials".into(),
        "--leader-elect=false".into(),
        "--controllers=*,-nodeipam,-cloud-node-lifecycle-controller".into(),
        "--kube-api-qps=200".into(),
        "--kube-api-burst=400".into(),
    ];
    let kube_scheduler = [
        bin("kube-scheduler"),
        format!("--kubeconfig={scheduler}"),
        format!("--authentication-kubeconfig={scheduler}"),
        format!("--authorization-kubeconfig={scheduler}"),
        "--leader-elect=false".into(),
    ];
    let ready = || {
        // kubectl costs a tenth of a second of a core, each time.
        if !listens("cp", (crate::layout::API, 443).into()) {
            return false;
        }
        let asked = Command::new("nsenter")
            .args([
                "--net=/run/netns/cp",
                &bin("kubectl"),
                "--kubeconfig",
                &config("admin"),
                "get",
                "--raw",
                "/readyz",
            ])
            .output();
        asked.is_ok_and(|output| output.status.success()) || {
            std::thread::sleep(Duration::from_millis(250));
            false
        }
    };
    world.processes.until("kube-apiserver", Duration::from_secs(120), ready)?;
    world.processes.start(Recipe::new("kube-controller-manager", "cp", controller_manager))?;
    world.processes.start(Recipe::new("kube-scheduler", "cp", kube_scheduler))
}

/// Something listens; asked from inside the namespace of a host.
pub fn listens(host: &str, address: SocketAddr) -> bool {
    let Ok(space) = std::fs::File::open(Path::new("/run/netns").join(host)) else { return false };
    // A thread of its own: the namespace is the thread's, and threads are not reused.
    std::thread::spawn(move || {
        nix::sched::setns(space, nix::sched::CloneFlags::CLONE_NEWNET).is_ok()
            && TcpStream::connect_timeout(&address, Duration::from_millis(500)).is_ok()
    })
    .join()
    .unwrap_or(false)
}
