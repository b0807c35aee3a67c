# Kinds, times, and what is missing.
VIRSH secret-event --list
VIRSH -q secret-event --list
VIRSH secret-event --list --event lifecycle
VIRSH secret-event
VIRSH secret-event --event birthday
VIRSH secret-event lifecycle --timeout 1
VIRSH secret-event --event ''
VIRSH secret-event --event lifecycle --timeout 0
VIRSH secret-event --event lifecycle --timeout -1
VIRSH secret-event --event lifecycle --timeout x
VIRSH secret-event --event lifecycle --timeout 2147484
VIRSH secret-event --event lifecycle --timeout 99999999999
VIRSH secret-event --event lifecycle --timeout ''
VIRSH secret-event --event lifecycle --timeout
VIRSH secret-event --event lifecycle --timeout 1
VIRSH secret-event --event value-changed --timeout 1 --loop --timestamp
VIRSH -q secret-event --event lifecycle --timeout 1
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
VIRSH secret-event --secret 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --event lifecycle --timeout 1
VIRSH secret-event 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 lifecycle --timeout 1
