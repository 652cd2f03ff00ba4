#!/bin/busybox sh
# First process of a guest: runs the suites, tells of them by the second serial port, and switches the machine off.
/bin/busybox --install -s /bin
export PATH=/usr/bin:/bin HOME=/root TMPDIR=/scratch
# The lab's feature.rs: tests that do not run leave their names here.
export SLUICEGATE_SKIPPED=/did-not-run
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mount -t bpf bpf /sys/fs/bpf
mount -t tmpfs tmpfs /run
mkdir -p /scratch
# Not over /tmp: the source tree may be below it.
mount -t tmpfs tmpfs /scratch
exec </dev/null >/dev/ttyS1 2>&1
while read -r module; do
    insmod "/modules/$module.ko" || echo "vm cannot load module $module"
done </modules/order
mkdir -p /dev/net
[ -e /dev/net/tun ] || mknod /dev/net/tun c 10 200
ip link set lo up
echo "vm up $(uname -r)"
while read -r name command; do
    echo "vm begin $name"
    start=$(cut -d ' ' -f 1 /proc/uptime)
    # shellcheck disable=SC2086 # the words of a command line
    timeout 1500 $command </dev/null
    code=$?
    [ $code = 0 ] || find / -xdev -path '*/demo-*-logs/*' -type f -exec tail -n 40 {} +
    [ ! -e $SLUICEGATE_SKIPPED ] || cat $SLUICEGATE_SKIPPED
    # A suite leaves nothing behind for the next.
    rm -rf /scratch/* /var/lib/* $SLUICEGATE_SKIPPED
    echo "vm end $name $code $start $(cut -d ' ' -f 1 /proc/uptime)"
done </suites
dmesg | grep -E 'BUG:|WARNING: CPU|Oops|general protection' && echo "vm kernel complained"
echo "vm down"
sync
poweroff -f
