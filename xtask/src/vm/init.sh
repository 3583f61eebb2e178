#!/usr/bin/sh
# First process of the guests of `cargo xtask vm`. Makes the machine ready, sources the plan
# (written by scenario.rs), which calls the functions below, and turns the machine off. What
# is found goes to the second serial port between markers (read by report.rs), what the
# kernel says to the first.

# The shell is bash: that of busybox takes its own programs before those on the path.
export PATH=/usr/sbin:/usr/bin:/usr/lib/busybox HOME=/root TMPDIR=/tmp RUST_BACKTRACE=1 OWN_MACHINE=1
/usr/bin/busybox mkdir -p /dev /proc /sys /tmp /run /root /usr/lib/busybox
/usr/bin/busybox --install -s /usr/lib/busybox
mount -t devtmpfs dev /dev
stty raw -echo < /dev/ttyS1
exec < /dev/null > /dev/ttyS1 2>&1

mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mkdir -p /dev/shm /dev/pts
mount -t tmpfs shm /dev/shm
mount -t devpts pts /dev/pts
mount -t securityfs security /sys/kernel/security
mount -t bpf bpf /sys/fs/bpf
mount -t tracefs trace /sys/kernel/tracing
printf '%s\n' root:x:0:0:root:/root:/bin/sh nobody:x:65534:65534:nobody:/:/bin/sh > /etc/passwd
printf '%s\n' root:x:0: nogroup:x:65534: > /etc/group
modprobe -a -q $(cat /etc/modules) 2> /dev/console
ip link set lo up
ip link set eth0 up && ip address add 10.0.2.15/24 dev eth0

uptime_s() { cut -d. -f1 /proc/uptime; }
begin() {
  printf '\n%%%% begin %s\n' "$1"
  began=$(uptime_s)
}
end() { printf '\n%%%% end %s %s %s\n' "$1" "$2" $(($(uptime_s) - began)); }

# One hierarchy with every controller, or one for each and the new one beside them.
cgroups() {
  if [ "$1" = v2 ]; then
    mount -t cgroup2 cgroup2 /sys/fs/cgroup
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
      echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
    done
    return
  fi
  mount -t tmpfs cgroup /sys/fs/cgroup
  for controllers in cpu,cpuacct cpuset blkio memory pids freezer; do
    mkdir "/sys/fs/cgroup/$controllers"
    mount -t cgroup -o "$controllers" cgroup "/sys/fs/cgroup/$controllers" 2> /dev/console ||
      rmdir "/sys/fs/cgroup/$controllers"
  done
  mkdir /sys/fs/cgroup/unified
  mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified
}

# What the agent says of itself under the name $1; the rest is how it is started.
doctor() {
  name=doctor:$1
  shift
  begin "$name"
  timeout -k 5 200 "$@" isostack-agent doctor --output json 2> /dev/console
  end "$name" $?
}

# What the agent says of the machine.
machine() {
  begin stack:host
  timeout -k 5 200 isostack-agent stack --output json 2> /dev/console
  end stack:host $?
}

# The cases in which something that the agent asks for is not there.
no_btf() { doctor no_btf unshare -m sh -c 'mount -t tmpfs none /sys/kernel/btf; exec "$@"' -; }
no_tracefs() {
  doctor no_tracefs unshare -m sh -c 'umount /sys/kernel/tracing; mount -t tmpfs none /sys/kernel/debug; exec "$@"' -
}
unprivileged() {
  doctor unprivileged setpriv --reuid 65534 --regid 65534 --clear-groups --bounding-set=-all
}
no_perfmon() { doctor no_perfmon setpriv --bounding-set=-perfmon,-sys_admin --inh-caps=-perfmon,-sys_admin; }
lockdown() {
  echo confidentiality > /sys/kernel/security/lockdown && doctor lockdown
}

# The guest's disk, where the tests keep their files: below the directory they were built in.
scratch() {
  mkdir -p "$1"
  mkfs.ext4 -q -F -E lazy_itable_init=1 /dev/vda > /dev/console 2>&1
  mount -t ext4 /dev/vda "$1" 2> /dev/console || mount -t tmpfs scratch "$1"
}

# Every test of a program, one process each, so that one that hangs costs itself only.
# $2: seconds for each; $3: only those whose name begins with this.
tests() {
  for name in $("/tests/$1" --list --format terse | sed -n "s/^\($3.*\): test\$/\1/p"); do
    begin "test:$1:$name"
    timeout -k 5 "$2" "/tests/$1" --exact "$name" --test-threads=1 --nocapture > /tmp/said 2>&1
    status=$?
    if [ $status != 0 ]; then
      tail -c 4000 /tmp/said
    else
      grep 'cannot run here' /tmp/said
    fi
    end "test:$1:$name" $status
  done
}

# Something of a developer's own.
script() {
  begin script
  sh /script 2>&1
  end script $?
}

. /plan
echo '%% done'
sync
sleep 0.2
reboot -f
