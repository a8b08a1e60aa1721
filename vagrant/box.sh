#!/usr/bin/env bash
# Builds a Vagrant box for libvirt from the distribution's archive: no box is downloaded, and no account needed.
#   box.sh [-s bookworm|trixie] [-o FILE.box] [-g GIB] [-c CA.crt]...
#   -c: a certificate authority that the machine is to trust as well, such as that of a company's proxy
# then: vagrant box add --name stratalab/bookworm FILE.box; BOX=stratalab/bookworm vagrant up --provider=libvirt
# The disk boots by a BIOS: SYSLINUX on a small FAT partition, to which each new kernel of the guest's is copied.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# shellcheck source=vagrant/lib.sh
. "$here/lib.sh"
PATH=$PATH:/usr/sbin:/sbin

SUITE=bookworm GIB=20 OUT='' AUTHORITIES=()
MBR=/usr/lib/syslinux/mbr/mbr.bin KEYRING=/usr/share/keyrings/debian-archive-keyring.gpg
FAT_MIB=192
PACKAGES=systemd,systemd-sysv,systemd-resolved,libpam-systemd,dbus,udev,kmod,linux-image-amd64,initramfs-tools
PACKAGES+=,openssh-server,sudo,rsync,git,make,curl,python3,python3-venv,iproute2,iptables,netbase,procps,ca-certificates
PACKAGES+=,e2fsprogs,cloud-guest-utils

refuse() {
  printf '%s\n' "$1" >&2
  exit 2
}

while getopts s:o:g:c: option; do
  case $option in
    s) SUITE=$OPTARG ;;
    o) OUT=$OPTARG ;;
    g) GIB=$OPTARG ;;
    c)
      grep -qs 'BEGIN CERTIFICATE' "$OPTARG" || refuse "-c $OPTARG: no certificate in PEM form"
      AUTHORITIES+=("$OPTARG")
      ;;
    *) refuse 'box.sh [-s bookworm|trixie] [-o FILE.box] [-g GIB] [-c CA.crt]...' ;;
  esac
done
case $SUITE in bookworm | trixie) ;; *) refuse "there is no recipe for '$SUITE': bookworm, or trixie" ;; esac
[[ $GIB =~ ^[1-9][0-9]{0,2}$ && $GIB -ge 4 ]] || refuse "-g $GIB: the disk's size is 4 to 999 GiB"
OUT=$(realpath -m "${OUT:-stratalab-$SUITE.box}")

main() {
  local missing=() pair
  for pair in mmdebstrap:mmdebstrap mke2fs:e2fsprogs mkfs.fat:dosfstools mcopy:mtools syslinux:syslinux \
    sfdisk:fdisk qemu-img:qemu-utils; do
    have "${pair%%:*}" || missing+=("${pair#*:}")
  done
  [ -e "$MBR" ] || missing+=(syslinux-common)
  [ -e "$KEYRING" ] || missing+=(debian-archive-keyring)
  local key
  key=$(insecure_key) || missing+=(vagrant)
  [ ${#missing[@]} = 0 ] || refuse "not installed: ${missing[*]} (sudo apt-get install ${missing[*]})"
  gain_root || refuse 'a tree of files with owners of their own is made by root alone: run it by sudo'
  work=$(mktemp -d /var/tmp/stratalab-box.XXXXXX)
  trap 'as_root rm -rf --one-file-system "$work"' EXIT
  lay_files "$key"
  say "Installing $SUITE ..."
  install_tree
  say 'Making the disk ...'
  make_disk
  say 'Packing the box ...'
  pack
  say "$OUT ($(du -h "$OUT" | cut -f 1)): vagrant box add --name stratalab/$SUITE $OUT"
}

insecure_key() { # Vagrant's public key, which `vagrant up` replaces at once by one of its own
  local found
  found=$(find /usr/share/rubygems-integration /usr/share/vagrant /opt/vagrant -name vagrant.pub 2>/dev/null | head -n 1)
  [ -n "$found" ] && cat "$found"
}

lay_files() { # KEY: there before any package is
  local tree=$work/files
  mkdir -p "$tree"/etc/{systemd/network,sudoers.d,initramfs-tools/conf.d,kernel/postinst.d} "$tree"/home/vagrant/.ssh
  echo stratalab >"$tree/etc/hostname"
  printf '127.0.0.1 localhost\n127.0.1.1 stratalab\n::1 localhost\n' >"$tree/etc/hosts"
  printf 'LABEL=root / ext4 errors=remount-ro 0 1\nLABEL=BOOT /boot/syslinux vfat umask=0077,nofail 0 2\n' >"$tree/etc/fstab"
  printf '[Match]\nName=en* eth*\n\n[Network]\nDHCP=yes\n\n[DHCPv4]\nClientIdentifier=mac\n' >"$tree/etc/systemd/network/80-dhcp.network"
  printf 'vagrant ALL=(ALL) NOPASSWD: ALL\n' >"$tree/etc/sudoers.d/vagrant"
  printf '%s\n' "$1" >"$tree/home/vagrant/.ssh/authorized_keys"
  mkdir -p "$tree/usr/local/share/ca-certificates"
  if [ ${#AUTHORITIES[@]} != 0 ]; then
    cp -- "${AUTHORITIES[@]}" "$tree/usr/local/share/ca-certificates/"
    printf '%s=/etc/ssl/certs/ca-certificates.crt\n' PIP_CERT SSL_CERT_FILE >"$tree/etc/environment" # pip has its own
  fi
  cat >"$tree/etc/kernel/postinst.d/zz-stratalab-box" <<'HOOK'
#!/bin/sh
# SYSLINUX reads the kernel from its own partition.
set -e
mountpoint -q /boot/syslinux || exit 0
cp "/boot/vmlinuz-$1" /boot/syslinux/kernel
cp "/boot/initrd.img-$1" /boot/syslinux/initrd
HOOK
  chmod 755 "$tree/etc/kernel/postinst.d/zz-stratalab-box"
  chmod 440 "$tree/etc/sudoers.d/vagrant"
  chmod 700 "$tree/home/vagrant/.ssh"
  cat >"$work/finish" <<'FINISH'
set -e
useradd --uid 1000 --user-group --shell /bin/bash --no-create-home vagrant
chown -R vagrant:vagrant /home/vagrant
mkdir -p /boot/syslinux
update-ca-certificates >/dev/null
systemctl enable systemd-networkd systemd-resolved ssh
systemctl mask apt-daily.timer apt-daily-upgrade.timer
rm -f /etc/ssh/ssh_host_* /var/lib/dbus/machine-id
printf '[Unit]\nDescription=Make the keys of this host\nBefore=ssh.service\nConditionPathExistsGlob=!/etc/ssh/ssh_host_*_key\n[Service]\nType=oneshot\nExecStart=/usr/bin/ssh-keygen -A\n[Install]\nWantedBy=multi-user.target\n' >/etc/systemd/system/ssh-keys.service
systemctl enable ssh-keys
: >/etc/machine-id
FINISH
}

install_tree() {
  local options=() line mirror
  while IFS= read -r line; do options+=("--aptopt=$line"); done < <(
    apt-config dump 2>/dev/null | grep -E '^Acquire::(https?::[^ ]*|Retries|Check-[^ ]*) ".+";$' | sed 's/ "/ "/' || true
  )
  mirror=${MIRROR:-http://deb.debian.org/debian}
  as_root mmdebstrap --mode=root --variant=minbase --format=directory --keyring="$KEYRING" "${options[@]}" \
    --include="$PACKAGES" --setup-hook="cp -R --no-preserve=ownership '$work/files/.' \"\$1\"" \
    --customize-hook="cp '$work/finish' \"\$1/finish\"; chroot \"\$1\" sh /finish; rm \"\$1/finish\"" \
    "$SUITE" "$work/tree" "deb $mirror $SUITE main" "deb $mirror $SUITE-updates main" \
    "deb ${SECURITY:-http://deb.debian.org/debian-security} $SUITE-security main" >"$work/log" 2>&1 ||
    { tail -n 5 "$work/log" >&2; return 1; }
}

make_disk() {
  local disk=$work/disk.raw fat=$work/fat root=$work/root
  as_root cp "$work"/tree/boot/vmlinuz-* "$work/kernel"
  as_root cp "$work"/tree/boot/initrd.img-* "$work/initrd"
  as_root chmod 644 "$work/kernel" "$work/initrd"
  printf 'DEFAULT stratalab\nPROMPT 0\nLABEL stratalab\n  LINUX kernel\n  INITRD initrd\n  APPEND root=LABEL=root ro console=tty0 console=ttyS0 net.ifnames=0\n' >"$work/syslinux.cfg"
  truncate -s "${FAT_MIB}M" "$fat"
  mkfs.fat -F 16 -h 2048 -n BOOT "$fat" >/dev/null # so many sectors stand before it
  mcopy -i "$fat" "$work/kernel" ::kernel
  mcopy -i "$fat" "$work/initrd" ::initrd
  mcopy -i "$fat" "$work/syslinux.cfg" ::syslinux.cfg
  syslinux --install "$fat"
  truncate -s "$((GIB * 1024 - FAT_MIB - 2))M" "$root"
  as_root mke2fs -q -F -t ext4 -L root -m 1 -E root_owner=0:0 -d "$work/tree" "$root"
  as_root rm -rf --one-file-system "$work/tree"
  truncate -s "${GIB}G" "$disk"
  printf 'label: dos\nstart=1MiB, size=%dMiB, type=e, bootable\nstart=%dMiB, type=83\n' "$FAT_MIB" "$((FAT_MIB + 1))" |
    sfdisk -q "$disk"
  dd if="$MBR" of="$disk" conv=notrunc bs=440 count=1 status=none
  dd if="$fat" of="$disk" conv=notrunc bs=1M seek=1 status=none
  as_root dd if="$root" of="$disk" conv=notrunc,sparse bs=1M seek="$((FAT_MIB + 1))" status=none
  rm -f "$root" "$fat"
  qemu-img convert -f raw -O qcow2 "$disk" "$work/box.img"
  rm -f "$disk"
}

pack() {
  printf '{"provider": "libvirt", "format": "qcow2", "virtual_size": %d}\n' "$GIB" >"$work/metadata.json"
  printf "Vagrant.configure('2') do |config|\n  config.vm.guest = :debian\nend\n" >"$work/Vagrantfile"
  tar -C "$work" -czf "$OUT.part" metadata.json Vagrantfile box.img
  mv "$OUT.part" "$OUT"
}

main
