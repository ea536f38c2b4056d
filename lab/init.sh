#!/bin/busybox sh
# PID 1 of the mini guest; for a guest with a disk, the step before its own init.
b=/bin/busybox
$b mkdir -p /proc /sys /dev /run /tmp /mnt
$b mount -t proc proc /proc
$b mount -t sysfs sys /sys
$b mount -t devtmpfs dev /dev
for module in $($b cat /lib/modules.order); do $b insmod "/lib/modules/$module" || echo "lab: no module $module"; done
for word in $($b cat /proc/cmdline); do
    case $word in lab.root=*) root=${word#lab.root=} ;; esac
done
if [ -n "$root" ]; then
    tries=0
    while [ ! -b "$root" ] && [ $tries -lt 100 ]; do
        $b usleep 50000
        tries=$((tries + 1))
    done
    $b mkdir -p /root
    $b mount -t ext4 -o noatime "$root" /root || { echo "lab: $root does not mount"; $b poweroff -f; }
    $b mount --move /dev /root/dev
    $b umount /sys /proc
    exec $b switch_root /root /sbin/init
fi
$b --install -s /bin
export PATH=/bin HOME=/
mount -t tmpfs run /run
mount -t cgroup2 cgroup /sys/fs/cgroup
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done 2> /dev/null
hostname lab
while :; do
    sh /lab/runner.sh /dev/ttyS1
    sleep 1
done
