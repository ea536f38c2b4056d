#!/bin/busybox sh
# The guest's end of Guest.run(): one script at a time over a raw serial line.
#   in:  ID BASE64(script)
#   out: @@ ID STATUS BASE64(gzip(what it printed))
# The line carries some 20 kB/s under TCG, hence gzip. The runner is exempt from the OOM killer, its scripts are not.
b=/bin/busybox
line=$1
work=/run/lab
$b mkdir -p $work
echo -1000 > /proc/self/oom_score_adj
$b stty -F "$line" raw -echo -onlcr
exec 3<> "$line"
echo "@@ 0 0 " >&3
while IFS=' ' read -r id script <&3; do
    case $id in '' | *[!0-9]*) continue ;; esac
    echo "$script" | $b base64 -d > $work/script
    (
        echo 0 > /proc/self/oom_score_adj
        exec 3>&-
        exec /bin/sh $work/script
    ) > $work/printed 2>&1 < /dev/null
    status=$?
    echo "@@ $id $status $($b gzip -c $work/printed | $b base64 -w 0)" >&3
    $b rm -f $work/script $work/printed
done
