#!/usr/bin/env bash
# QEMU 7.2's microvm and Linux 6.1 (Debian 12's qemu-system-x86 and cloud kernel): a guest that boots and never wakes.
#
# Expected: `noapictimer` saves the kernel 0.1 s of calibration, and it takes the machine's other timer, as its PIT is
#   there.
# Seen: the guest boots, runs its init, answers on the network; its clock goes on; no sleep in it ever ends. QEMU wires
#   the PIT to pin 2 of the I/O APIC, as on a PC, and the microvm's ACPI tables, unlike a PC's, do not say so: the kernel
#   waits at pin 0. Without ACPI the interrupt comes by the older controller, and the sleep ends.
# For a lab: a service that answers is no proof that its machine is whole; try a timer before an option is kept.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
kernel=$(apt-cache depends linux-image-cloud-amd64 | sed -n 's/.*Depends: \(linux-image-[0-9].*\)/\1/p' | head -n 1)
debian_packages 'qemu-system-x86=1:7.2*' 'qemu-system-common=1:7.2*' 'busybox-static=1:1.35*' \
    "${kernel:?no package lists: apt-get update}=6.1*"

cd "$work"
mkdir -p guest/bin
cp "$(command -v busybox)" guest/bin/busybox
cat >guest/init <<'INIT'
#!/bin/busybox sh
echo runs
/bin/busybox sleep 1
echo slept
/bin/busybox reboot -f
INIT
chmod +x guest/init
(cd guest && find . | busybox cpio -o -H newc) >initramfs 2>cpio.log
firmware=()
for folder in {"$work/root",}/usr/share/{seabios,qemu}; do firmware+=(-L "$folder"); done
image=$(find "$work" -name "vmlinuz-*-cloud-amd64" | head -n 1)
khz=$(awk '/^cpu MHz/ { printf "%d", $4 * 1000; exit }' /proc/cpuinfo)

# boot LABEL MACHINE WORDS: what the guest's init said, within a minute.
boot() {
    timeout 60 qemu-system-x86_64 -machine "$2" -accel tcg -m 128 -nodefaults -no-user-config -display none -no-reboot \
        "${firmware[@]}" -serial stdio -kernel "$image" -initrd initramfs \
        -append "console=ttyS0 loglevel=1 reboot=t no_timer_check tsc_early_khz=$khz $3" </dev/null >console 2>&1 || true
    echo "$1: $(tr -d '\r' <console | grep -xE 'runs|slept' | paste -sd ' ')"
}
{
    boot 'microvm' microvm ''
    boot 'microvm, noapictimer' microvm noapictimer
    boot 'microvm without ACPI, noapictimer' microvm,acpi=off noapictimer
    boot 'q35, noapictimer' q35 noapictimer
} >seen

as_recorded <<'EOS'
microvm: runs slept
microvm, noapictimer: runs
microvm without ACPI, noapictimer: runs slept
q35, noapictimer: runs slept
EOS
