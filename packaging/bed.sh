#!/usr/bin/env bash
# Boots systemd as PID 1 of a machine of its own: an overlay over this machine's
# files, with namespaces for processes, mounts, network, names and cgroups. What
# is installed and started in there is gone when it ends; the machine outside is
# not touched. It runs in the foreground and ends, with all that is in it, when
# it is killed.
#   bed.sh DIR    DIR: empty, holds the overlay; DIR/root is the machine's root
#   bed.sh clean NAME    removes what cgroups a bed has left
set -euo pipefail
hierarchies=(cpu cpuacct cpuset memory devices freezer blkio pids systemd unified)

if [ "${1-}" = clean ]; then
  for h in "${hierarchies[@]}"; do
    g=/sys/fs/cgroup/$h/$2
    [ ! -d "$g" ] || find "$g" -depth -type d -exec rmdir {} +
  done
  g=/sys/fs/cgroup/$2
  [ ! -d "$g" ] || find "$g" -depth -type d -exec rmdir {} +
  exit 0
fi

# A group of its own in each hierarchy, which the namespace makes the root.
if [ "${2-}" = "" ]; then
  name=$(basename "$1")
  for h in "${hierarchies[@]}" ""; do
    [ -d "/sys/fs/cgroup/$h" ] && [ -e "/sys/fs/cgroup/$h/cgroup.procs" ] || continue
    g=/sys/fs/cgroup/$h/$name
    mkdir -p "$g"
    if [ "$h" = cpuset ]; then
      cat /sys/fs/cgroup/cpuset/cpuset.cpus >"$g/cpuset.cpus"
      cat /sys/fs/cgroup/cpuset/cpuset.mems >"$g/cpuset.mems"
    fi
    echo $$ >"$g/cgroup.procs"
  done
  exec unshare --kill-child --mount --pid --fork --uts --ipc --net --cgroup "$0" "$1" inside
fi

mount --make-rprivate /
mount -t tmpfs -o mode=755 tmpfs "$1"
mkdir "$1"/{upper,work,root}
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
cd "$1/root"
mount -t proc proc proc
# The kernel's settings are everybody's, those of the network this machine's own.
mount --bind proc/sys proc/sys
mount -o remount,ro,bind proc/sys
mount --bind proc/sys/net proc/sys/net
mount -o remount,rw,bind proc/sys/net
mount -t sysfs -o ro sysfs sys
if [ -e /sys/fs/cgroup/cgroup.controllers ]; then
  mount -t cgroup2 cgroup2 sys/fs/cgroup
else
  mount -t tmpfs -o mode=755 tmpfs sys/fs/cgroup
  for h in "${hierarchies[@]}"; do
    [ -d "/sys/fs/cgroup/$h" ] || continue
    mkdir "sys/fs/cgroup/$h"
    case "$h" in
    unified) mount -t cgroup2 cgroup2 "sys/fs/cgroup/$h" ;;
    systemd) mount -t cgroup -o none,name=systemd cgroup "sys/fs/cgroup/$h" ;;
    *) mount -t cgroup -o "$h" cgroup "sys/fs/cgroup/$h" ;;
    esac
  done
fi
mount -t tmpfs -o mode=755 tmpfs dev
for d in null zero full random urandom tty; do touch "dev/$d" && mount --bind "/dev/$d" "dev/$d"; done
mkdir dev/shm dev/pts
mount -t tmpfs tmpfs dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# containerd makes overlays of its own, for which this one is no place.
mkdir -p var/lib/containerd etc/systemd/system var/lib/stellar-bed
mount -t tmpfs tmpfs var/lib/containerd
# What this machine has of its own, for the tests to list.
mkdir var/lib/stellar-bed/changed
mount --bind "$1/upper" var/lib/stellar-bed/changed
rm -rf var/lib/stellar etc/stellar usr/sbin/policy-rc.d
# Nothing starts by itself but what a test installs.
cat >etc/systemd/system/bed.target <<'END'
[Unit]
DefaultDependencies=no
END
mkdir run/lock old
pivot_root . old
umount -l /old
rmdir /old
hostname bed
ip link set lo up
exec env -i container=bed PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
  /lib/systemd/systemd --system --unit=bed.target --log-target=console --show-status=no
