# Which URIs the daemon takes.
# virsh only
virsh -c 'secret:///?socket=SOCKET' secret-list
virsh -c 'secret:///nowhere?socket=SOCKET' secret-list
virsh -c 'secret:///system/?socket=SOCKET' secret-list
virsh -c 'secret+unix:///nowhere?socket=SOCKET' secret-list
virsh -c 'secret:///nowhere?mode=direct&socket=SOCKET' secret-list
virsh -k 0 -c 'secret:///nowhere?socket=SOCKET' secret-list
VIRSH -k 0 secret-list
VIRSH -k 1 -K 1 secret-list
VIRSH -r secret-list
