#!/usr/bin/env bash
# libvirt 9.0.0 (Debian 12's libvirt-clients, libvirt's own test driver): what a domain's metadata loses.
#
# <metadata> holds elements of anyone's, each in a namespace of its owner. That there may be one of each namespace
# stands in the documentation only: the schema passes more.
# Expected: what was defined is read back, or the definition is refused (--validate).
# Seen: of two elements of one namespace the second is gone, and so is one without a namespace; define says nothing,
#   with --validate too. <memory unit='MB'> is rounded up to whole KiB, so that 100 MB come back as 100000768 bytes.
# For a lab: labels are children of one element per namespace, and an owner that finds its own label only is not told
#   that another was lost.
# Run on 2026-11-30.
set -euo pipefail
# shellcheck source-path=SCRIPTDIR source=lib.bash
. "$(dirname "$0")/lib.bash"
debian_packages 'libvirt-clients=9.0.0*'

cd "$work"
cat >domain.xml <<'EOF'
<domain type='test'>
  <name>guest</name>
  <metadata>
    <run xmlns='urn:example:lab'>1</run>
    <scenario xmlns='urn:example:lab'>boot</scenario>
    <other xmlns='urn:example:other'/>
    <plain>kept?</plain>
  </metadata>
  <memory unit='MB'>100</memory>
  <os><type>hvm</type></os>
</domain>
EOF
virsh --connect test:///default "define domain.xml; dumpxml guest" | grep -E 'metadata>|urn:|plain|<memory' >seen
virsh --connect test:///default define --validate domain.xml | sed '/^$/d' >>seen

as_recorded <<'EOF'
  <metadata>
    <run xmlns="urn:example:lab">1</run>
    <other xmlns="urn:example:other"/>
  </metadata>
  <memory unit='KiB'>97657</memory>
Domain 'guest' defined from domain.xml
EOF
