"""A real kubelet, from Debian's sources.

Debian 12 packages the client of Kubernetes 1.20 alone, but its source package is all of it with all it needs, which
later ones are not. That kubelet runs containers by Docker itself, and pods of a folder without a server.
"""

from __future__ import annotations

from pathlib import Path

from lab.host import alone, call, debian_mirror, folder

SUITE = "bookworm"
# In GOPATH mode, as the package builds its client; without the clouds.
BUILD = """
set -e
cd /root
apt-get -qq source --download-only kubernetes
export GO111MODULE=off CGO_ENABLED=0 GOPATH=/root/go
mkdir -p go/src/k8s.io/kubernetes
tar -C go/src/k8s.io/kubernetes --strip-components=1 -xf kubernetes_*.orig.tar.*
cd go/src/k8s.io/kubernetes
go build -tags providerless -ldflags "-s -w" -o /root/kubelet ./cmd/kubelet
gzip /root/kubelet
"""


def packed_kubelet() -> Path:
    """The program as .gz, built now unless it is here: five minutes of a processor, two gigabytes meanwhile; as root.

    Raises LabError.
    """
    built = folder() / "kubelet-1.20.gz"
    with alone("kubelet"):
        if not built.exists():
            mirror = debian_mirror()
            (binaries,) = mirror.sources(SUITE)
            sources = (binaries, binaries.replace("deb ", "deb-src ", 1))
            half = built.with_suffix(".half")
            build = f"--customize-hook=chroot \"$1\" sh -c '{BUILD}'"
            fetch = f"--customize-hook=download /root/kubelet.gz {half}"
            needs = ("--variant=minbase", "--include=golang-go,xz-utils", '--aptopt=APT::Install-Recommends "false"')
            argv = ("mmdebstrap", "--format=null", f"--keyring={mirror.keyring}", *needs, build, fetch, SUITE, "-")
            call((*argv, *sources), timeout_s=7200)
            half.rename(built)
    return built
