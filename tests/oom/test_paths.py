"""Paths as kernels printed them (corpus, lab, captures), and as the named programs make them."""

import pytest

from reprieve.oom.paths import workload

ID = "178ec18073cc6ac7be2de8d9869daf162a6349dd056b6535849112c53ec3102a"
UID = "10d16a28-60ff-475f-a631-510d9792219f"
UID_SLICE = "10d16a28_60ff_475f_a631_510d9792219f"
USER = "/user.slice/user-1000.slice/user@1000.service"
BURSTABLE = "/kubepods.slice/kubepods-burstable.slice"

UNKNOWN = [
    "/lab/docker/web",
    "/docker/0123",
    "/pod95387fa4",
    "/mem2",
    "/.scope",
    "/.service",
    "/burstable/web",
    "/apps/in_active_bg",
    "/ltp/test-305071",
    "in",
    "/\x1b[31m\n<b>",
]


@pytest.mark.parametrize("path", UNKNOWN)
def test_a_path_that_nobody_is_known_to_make_is_named_by_itself(path: str) -> None:
    seen = workload(path)
    assert (seen.kind, seen.name, seen.manager, seen.container_id, seen.unit) == ("cgroup", path, None, None, None)


@pytest.mark.parametrize("path", ["", "/", "//"])
def test_the_root_is_the_root(path: str) -> None:
    assert workload(path).kind == "root"


NAMED = [
    # Printed by real kernels: corpus, lab and captured container runs.
    ("/docker/" + ID, "container", "Docker container 178ec18073cc"),
    ("/libpod_parent/libpod-" + ID, "container", "Podman container 178ec18073cc"),
    (f"/kubepods/burstable/pod{UID}", "pod", f"pod {UID}"),
    ("/user.slice/reprieve-run-7-2079803-4026531836-1", "run", "a command under reprieve run"),
    ("/system.slice/reprieve-run-7-2079803-4026531836-1.scope/command", "run", "a command under reprieve run"),
    (
        "/reprieve-run-7-2079803-4026531836-1/command/reprieve-run-99-2079804-4026531836-1",
        "run",
        "a command under reprieve run 99, within another",
    ),
    ("/system.slice/reprieve-run-x.scope", "scope", "reprieve-run-x.scope"),
    (f"/kubepods/burstable/pod{UID}/{ID}", "container", f"container 178ec18073cc of pod {UID}"),
    (f"/kubepods/pod{UID}/{ID}", "container", f"container 178ec18073cc of pod {UID}"),
    (
        f"{BURSTABLE}/kubepods-burstable-pod{UID_SLICE}.slice/cri-containerd-{ID}.scope",
        "container",
        f"container 178ec18073cc of pod {UID}",
    ),
    ("/kubepods.slice", "slice", "all Kubernetes pods"),
    ("/podruntime.slice", "slice", "podruntime.slice"),
    ("/podruntime.slice/kubelet.service", "unit", "kubelet.service"),
    ("/system.slice/leaky.service", "unit", "leaky.service"),
    ("/system.slice/sc.scope", "scope", "sc.scope"),
    ("/user.slice", "slice", "all users (user.slice)"),
    ("/user.slice/inslice.service", "unit", "inslice.service"),
    ("/user.slice/user-504.slice/session-2.scope", "session", "session 2 of user 504"),
    (
        "/user.slice/user-1000.slice/xxxxxxxxxxxxxxxxx/app.slice/run-u640.service",
        "unit",
        "run-u640.service of user 1000",
    ),
    ("/user.slice/user-0.slice/xxxxxxxxxxxxxx/init.scope", "scope", "the service manager (systemd) of user 0"),
    ("/lxc.payload.test", "container", "LXC container test"),
    # Made by the programs named at the top of paths.py.
    (f"/system.slice/docker-{ID}.scope", "container", "Docker container 178ec18073cc"),
    (f"/docker/{ID}/init", "container", "Docker container 178ec18073cc"),
    (f"/machine.slice/libpod-{ID}.scope/container", "container", "Podman container 178ec18073cc"),
    (f"{USER}/user.slice/libpod-{ID}.scope", "container", "Podman container 178ec18073cc of user 1000"),
    (f"/machine.slice/libpod-conmon-{ID}.scope", "scope", "the monitor (conmon) of Podman container 178ec18073cc"),
    (f"/machine.slice/machine-libpod_pod_{ID}.slice", "pod", "Podman pod 178ec18073cc"),
    (f"/libpod_parent/{ID}", "pod", "Podman pod 178ec18073cc"),
    (
        f"/kubepods.slice/kubepods-pod{UID_SLICE}.slice/crio-{ID}.scope",
        "container",
        f"container 178ec18073cc of pod {UID}",
    ),
    (
        f"/system.slice/containerd.service/kubepods-besteffort-pod{UID_SLICE}.slice:cri-containerd:{ID}",
        "container",
        f"container 178ec18073cc of pod {UID}",
    ),
    (
        f"/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-pod{UID_SLICE}.slice",
        "pod",
        f"pod {UID}",
    ),
    ("/kubepods/besteffort", "slice", "all BestEffort pods"),
    ("/docker", "slice", "all Docker containers (/docker)"),
    (f"/default/{ID}", "container", "container 178ec18073cc"),
    (f"/docker/{ID}/system.slice/nginx.service", "unit", "nginx.service in Docker container 178ec18073cc"),
    ("/lxc/101", "container", "LXC container 101"),
    ("/lxc/101/ns/system.slice/nginx.service", "unit", "nginx.service in LXC container 101"),
    ("/lxc.monitor.web", "cgroup", "the monitor of LXC container web"),
    ("/machine.slice/systemd-nspawn@deb.service/payload", "container", "systemd-nspawn container deb"),
    (r"/machine.slice/machine-qemu\x2d1\x2dweb.scope", "scope", "virtual machine web"),
    ("/init.scope", "scope", "the service manager (systemd)"),
    ("/user.slice/user-1000.slice", "user", "user 1000"),
    (USER, "user", "the services and programs of user 1000"),
    (f"{USER}/app.slice", "slice", "app.slice of user 1000"),
    (f"{USER}/app.slice/app-gnome-org.gnome.Terminal-1234.scope", "scope", "org.gnome.Terminal of user 1000"),
    (rf"{USER}/app.slice/app-org.kde\x2dpim-1234.scope", "scope", "org.kde-pim of user 1000"),
    (f"{USER}/app.slice/app-gnome\\x2dcalculator@8f.service", "unit", "gnome-calculator of user 1000"),
    (f"{USER}/session.slice/org.gnome.Shell@wayland.service", "unit", "org.gnome.Shell@wayland.service of user 1000"),
    (
        f"{USER}/app.slice/snap.firefox.firefox-0d3e1a2b-1111-2222-3333-0123456789ab.scope",
        "scope",
        "snap firefox of user 1000",
    ),
    ("/system.slice/snap.lxd.daemon.service", "unit", "snap lxd.daemon"),
    ("/user.slice/user-1000.slice/session-c2.scope", "session", "session c2 of user 1000"),
]


@pytest.mark.parametrize(("path", "kind", "name"), NAMED)
def test_a_path_is_named_as_people_know_it(path: str, kind: str, name: str) -> None:
    assert (workload(path).kind, workload(path).name) == (kind, name)


@pytest.mark.parametrize(
    ("path", "qos", "manager"),
    [
        (f"/kubepods/pod{UID}/{ID}", "Guaranteed", "kubernetes"),
        (f"/kubepods/besteffort/pod{UID}", "BestEffort", "kubernetes"),
        (f"/kubepods.slice/kubepods-pod{UID_SLICE}.slice/crio-{ID}.scope", "Guaranteed", "cri-o"),
        (f"{BURSTABLE}/kubepods-burstable-pod{UID_SLICE}.slice/cri-containerd-{ID}.scope", "Burstable", "containerd"),
    ],
)
def test_the_path_tells_the_class_and_the_uid_of_a_pod(path: str, qos: str, manager: str) -> None:
    seen = workload(path)
    assert (seen.qos, seen.manager, seen.pod_uid) == (qos, manager, UID)


def test_a_pod_that_is_not_below_kubepods_has_no_class() -> None:
    assert workload(f"/pod{UID}").qos is None


def test_a_static_pod_has_a_uid_without_dashes() -> None:
    uid = "0123456789abcdef0123456789abcdef"
    assert workload(f"/kubepods.slice/kubepods-pod{uid}.slice").pod_uid == uid


def test_a_container_of_a_user_is_still_that_users() -> None:
    assert workload(f"{USER}/user.slice/docker-{ID}.scope").uid == 1000
