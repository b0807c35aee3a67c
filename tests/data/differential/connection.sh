# What virsh asks of the connection, and of drivers that aren't there.
# virsh only
VIRSH uri
VIRSH -r uri
VIRSH version
VIRSH version --daemon
VIRSH hostname
VIRSH sysinfo
VIRSH capabilities
VIRSH nodeinfo
VIRSH list
VIRSH net-list
VIRSH pool-list
VIRSH nodedev-list
VIRSH 'secret-list; secret-list'
