# Becomes systemd, process 1 of a PID namespace: boot.sh FOLDER REPOSITORY BINARY, inside `unshare`.
#
# It sees this machine's programs, but nothing that it or its services do affects the machine. The root is read-only
# here, everything that is written stays in memory, and systemd knows only the units in /run/units. The machine's own
# units would clean its /tmp and start its daemons.
set -euo pipefail
folder=$1 repository=$2 binary=$3
mount --make-rprivate /
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t cgroup2 cgroup2 /sys/fs/cgroup
mount -t tmpfs -o mode=0755 tmpfs /run
mkdir -p /run/lab /run/repository /run/layers/{etc,usr,var/lib}/{upper,work} /run/units /run/none
mount --bind "$folder" /run/lab
mount --bind "$repository" /run/repository
cp "$binary" /run/overlay.bin
for layer in etc usr var/lib; do
    mount -t overlay overlay -o "lowerdir=/$layer,upperdir=/run/layers/$layer/upper,workdir=/run/layers/$layer/work" "/$layer"
done
for place in /tmp /var/tmp /var/log /var/lib/systemd; do
    mkdir -p "$place"
    mount -t tmpfs -o mode=1777 tmpfs "$place"
done

# Installs as an administrator would.
PREFIX=/usr BINARY=/run/overlay.bin /run/repository/scripts/install > /dev/null

# Creates the device as udev would.
mknod -m 0666 /run/tun c 10 200
mount --bind /run/tun /dev/net/tun

mount -o remount,bind,ro /
cp /usr/lib/systemd/system/overlay{@.service,@.socket,-rendezvous@.service} /run/units/
for target in sysinit basic sockets shutdown umount network-online nss-lookup lab; do
    printf '[Unit]\nDefaultDependencies=no\n' > "/run/units/$target.target"
done
# There is no journal here, so the log goes to a file.
for unit in overlay@ overlay-rendezvous@; do
    mkdir "/run/units/$unit.service.d"
    printf '[Service]\nStandardError=append:/run/lab/unit.log\n' > "/run/units/$unit.service.d/log.conf"
done

# Inside a container, systemd expects this to be done already. Credentials reach a service through it.
mount --make-rshared /
export container=lab SYSTEMD_UNIT_PATH=/run/units SYSTEMD_GENERATOR_PATH=/run/none SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/run/none
exec /lib/systemd/systemd --system --unit=lab.target --log-target=console --show-status=0
