#!/usr/bin/env bash
# Boot times by hand, as lab sheets ask for them, and beside them what they miss: the same container, in the same round,
# timed by `date +%s`, by `date +%s%N` around `docker start`, and until nginx has answered.
#
#   by-hand.sh [ROUNDS]       default 10; needs docker, curl and nginx-image.sh's two images
#
# Rounds take the two containers in turns. The first answer is looked for from the return of `docker start` on, by a
# new curl every few milliseconds: `ready` is late by one curl at most, which its own line tells.
set -euo pipefail
rounds=${1:-10}
images=(stratalab-teaching/nginx:1 stratalab-teaching/nginx:prepares)
here=$(mktemp -d)
names=()

cleanup() {
  [ "${#names[@]}" -eq 0 ] || docker rm --force "${names[@]}" >/dev/null 2>&1 || true
  rm -rf "$here"
}
trap cleanup EXIT

milliseconds() { echo $((($2 - $1) / 1000000)); }

# The median of a file's numbers, their 95 % interval by order statistics, and their range.
summary() {
  sort -n "$1" | awk -v what="$2" '
    { value[NR] = $1 }
    END {
      middle = NR % 2 ? value[(NR + 1) / 2] : (value[NR / 2] + value[NR / 2 + 1]) / 2
      # The largest k of which P(at most k - 1 of n lie below the median) is within 2.5 %.
      below = 0; ways = 1; k = 0
      for (i = 0; i < NR / 2; i++) {
        below += ways * 0.5 ^ NR
        if (below > 0.025) break
        k = i + 1
        ways = ways * (NR - i) / (i + 1)
      }
      interval = k ? value[k] " to " value[NR + 1 - k] : "n < 6"
      printf "%-60s %8g   %-16s %s to %s   n = %d\n", what, middle, interval, value[1], value[NR], NR
    }'
}

for image in "${images[@]}"; do
  name=by-hand-$$-${image##*:}
  docker create --name "$name" --publish 127.0.0.1::80 --cpus 1 --memory 128m "$image" >/dev/null
  names+=("$name")
done

for ((round = 0; round <= rounds; round++)); do # round 0 is warm-up, and left out
  for name in "${names[@]}"; do
    kind=${name##*-}
    whole_start=$(date +%s)
    start=$(date +%s%N)
    docker start "$name" >/dev/null
    returned=$(date +%s%N)
    whole_end=$(date +%s)
    port=$(docker port "$name" 80/tcp)
    asked=$(date +%s%N)
    until curl --silent --fail --output /dev/null --max-time 5 "http://$port/"; do sleep 0.005; done
    ready=$(date +%s%N)
    # What looking itself takes: the port's address, and one curl of a server that is there.
    again=$(date +%s%N)
    curl --silent --fail --output /dev/null "http://$port/"
    one_curl=$(milliseconds "$again" "$(date +%s%N)")
    docker stop --time 2 "$name" >/dev/null
    [ "$round" -gt 0 ] || continue
    echo $((whole_end - whole_start)) >>"$here/$kind.seconds"
    milliseconds "$start" "$returned" >>"$here/$kind.returned"
    milliseconds "$start" "$ready" >>"$here/$kind.ready"
    echo $(($(milliseconds "$returned" "$asked") + one_curl)) >>"$here/$kind.looking"
  done
done

printf '%-60s %8s   %-16s %s\n' "load $(cut -d' ' -f1-3 /proc/loadavg) on $(nproc) CPUs" median '95 % interval' range
for name in "${names[@]}"; do
  kind=${name##*-}
  title="nginx"
  [ "$kind" = 1 ] || title="nginx that prepares first"
  summary "$here/$kind.seconds" "$title: date +%s around docker start (s)"
  summary "$here/$kind.returned" "$title: until docker start returns (ms)"
  summary "$here/$kind.ready" "$title: until the first answer (ms)"
  summary "$here/$kind.looking" "  of which looking takes at most (ms)"
done
