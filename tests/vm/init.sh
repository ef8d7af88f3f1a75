#!/bin/busybox sh
# First process of the machine: makes the host's files, read-only under a layer in memory, its own root, and becomes
# the command in /command, one word per line.
export PATH=/bin
/bin/busybox --install -s /bin
mount -t devtmpfs dev /dev
exec </dev/console >/dev/console 2>&1
mount -t proc proc /proc
mount -t sysfs sys /sys
echo "vm: kernel $(uname -r) is up after $(cut -d' ' -f1 /proc/uptime) s"
for module in /modules/*.ko; do
  insmod "$module" || echo "vm: $module does not load"
done
mount -t tmpfs tmpfs /upper
mkdir /upper/files /upper/work
if ! mount -t 9p -o trans=virtio,version=9p2000.L,msize=512000,cache=loose,ro host /host ||
  ! mount -t overlay -o lowerdir=/host,upperdir=/upper/files,workdir=/upper/work overlay /new; then
  echo "vm: no root file system"
  poweroff -f
fi
ip link set lo up
for each in dev proc sys; do mount -o move /$each /new/$each; done
set --
while IFS= read -r word; do set -- "$@" "$word"; done </command
exec switch_root -c /dev/console /new "$@"
