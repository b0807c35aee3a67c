# Events of a secret that is not there.
VIRSH secret-event --event lifecycle --timeout 1 --secret nope
VIRSH secret-event --event lifecycle --timeout 1 --secret 00000000-0000-0000-0000-000000000001
