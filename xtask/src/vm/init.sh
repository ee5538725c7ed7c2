#!/bin/busybox sh
# The first process of a machine: makes it look like one, runs what /suite says, and turns it off.
# Speaks on the second serial line; the first has the kernel's messages.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
/bin/busybox --install -s /usr/bin 2>/dev/null
mkdir -p /proc /sys /dev /run /tmp /root /mnt
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
exec </dev/null >/dev/ttyS1 2>&1
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs -o mode=1777 tmpfs /dev/shm
mount -t tmpfs -o mode=1777 tmpfs /tmp
mount -t tmpfs -o mode=755 tmpfs /run
mount -t cgroup2 cgroup2 /sys/fs/cgroup
echo +memory >/sys/fs/cgroup/cgroup.subtree_control
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs tracefs /sys/kernel/tracing
ln -sf /proc/self/fd /dev/fd
ln -sf /proc/self/fd/0 /dev/stdin
ln -sf /proc/self/fd/1 /dev/stdout
ln -sf /proc/self/fd/2 /dev/stderr
for module in /modules/*.ko; do
    # In the order of their numbers. One that is built in is not here.
    insmod "$module" || echo "$module was refused"
done
ip link set lo up
# Settings of the whole machine are in its own namespace only. Here nobody else is hurt by a test that changes one.
touch /machine-netns
mount --bind /proc/self/ns/net /machine-netns
ulimit -n 65536
export KERNEL=$(uname -r)
export HOME=/root TMPDIR=/tmp LANG=C.UTF-8 RELISTEN_SKIPPED=/run/skipped
: >"$RELISTEN_SKIPPED"
echo "@booted $(uname -r) $(cut -d' ' -f1 /proc/uptime)"

# run NAME SECONDS COMMAND...: the command's end is told, and it has one.
run() {
    name=$1 limit=$2
    shift 2
    echo "@begin $name"
    begin=$(cut -d. -f1 /proc/uptime)
    timeout -s KILL "$limit" "$@"
    echo "@end $name $? $(($(cut -d. -f1 /proc/uptime) - begin))"
}

# not_on_6_1 TEST: the next command leaves it out there.
not_on_6_1() {
    case $KERNEL in
    6.1.*)
        LEFT_OUT="$LEFT_OUT --skip $1"
        echo "$1: what it looks for is not told on this kernel" >>"$RELISTEN_SKIPPED"
        ;;
    esac
}

. /suite
sed 's/^/@skipped /' "$RELISTEN_SKIPPED"
echo "@over"
poweroff -f
