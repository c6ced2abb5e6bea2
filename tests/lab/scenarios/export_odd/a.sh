. /host/guest/export.sh
export_host
