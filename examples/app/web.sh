#!/bin/busybox sh
# shellcheck shell=dash
# nginx takes no address from the environment: its configuration is written at the start.
set -eu
to="http://$WORKER_HOST:$WORKER_PORT"
ask=""
if grep -qs 'nameserver 127.0.0.11' /etc/resolv.conf; then
    # Docker's and Swarm's own DNS: the worker is looked up again and again, since another one has another address.
    ask="resolver 127.0.0.11 valid=1s ipv6=off; set \$worker $to;"
    to="\$worker"
fi
cat > /tmp/nginx.conf <<CONF
daemon off; error_log stderr; pid /tmp/nginx.pid; worker_processes 1;
events {}
http {
    access_log off;
    client_body_temp_path /tmp/body; proxy_temp_path /tmp/proxy;
    fastcgi_temp_path /tmp/fastcgi; uwsgi_temp_path /tmp/uwsgi; scgi_temp_path /tmp/scgi;
    server { listen 8080; location / { $ask proxy_connect_timeout 1s; proxy_pass $to; } }
}
CONF
exec nginx -c /tmp/nginx.conf
