# What a connection that only reads is refused.
# virsh only
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH -r secret-define s.xml
VIRSH -r secret-define --validate s.xml
VIRSH secret-define s.xml
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
VIRSH -r secret-list
VIRSH -r secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH -r secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH -r secret-get-value 00000000-0000-0000-0000-000000000001
VIRSH -r secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 eHh4
VIRSH -r secret-undefine 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH -r secret-undefine 00000000-0000-0000-0000-000000000001
VIRSH -r secret-event --event lifecycle --timeout 1
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
