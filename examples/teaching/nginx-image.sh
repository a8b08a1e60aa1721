#!/usr/bin/env bash
# Puts nginx from Debian's packages into an image of the local Docker, without a registry.
#
#   nginx-image.sh [SUITE]     default bookworm; needs mmdebstrap, docker, and Debian's archive
#
# Two images: stratalab-teaching/nginx:1 starts nginx at once, stratalab-teaching/nginx:prepares makes a key first.
# They stay; `docker image rm` of both names takes them away.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
suite=${1:-bookworm}
name=stratalab-teaching/nginx
root=$(mktemp --tmpdir nginx-XXXXXX.tar)
trap 'rm -f "$root"' EXIT

# The $1 in the hooks is mmdebstrap's own. `extract` unpacks the packages and runs none of their scripts; --mode=auto needs no root where namespaces are allowed.
# shellcheck disable=SC2016
mmdebstrap --quiet --variant=extract --include=nginx-light,openssl,dash,base-files,base-passwd \
  --extract-hook='cp "$1/usr/share/base-passwd/passwd.master" "$1/etc/passwd"' \
  --extract-hook='cp "$1/usr/share/base-passwd/group.master" "$1/etc/group"' \
  --extract-hook="upload $here/nginx.conf /etc/nginx/nginx.conf" \
  --extract-hook="upload $here/prepare-first.sh /prepare-first.sh" \
  --extract-hook='chmod 755 "$1/prepare-first.sh"; rm -rf "$1/var/lib/apt" "$1/var/cache/apt" "$1/usr/share/doc"' \
  --extract-hook='test -e "$1/bin/sh" || ln -s dash "$1/bin/sh"' \
  "$suite" "$root"

docker image rm "$name:1" "$name:prepares" >/dev/null 2>&1 || true # those of an earlier call
docker import --change 'CMD ["/usr/sbin/nginx","-g","daemon off; user root;"]' --change 'EXPOSE 80' "$root" "$name:1" >/dev/null
docker import --change 'CMD ["/bin/sh","/prepare-first.sh"]' --change 'EXPOSE 80' "$root" "$name:prepares" >/dev/null
docker image ls "$name"
