#!/bin/sh
# As many an entrypoint does, some work before the service starts: here a key of 4096 bits, made anew each time.
set -eu
openssl genrsa -out /tmp/key.pem 4096 2>/tmp/openssl.log
exec /usr/sbin/nginx -g 'daemon off; user root;'
