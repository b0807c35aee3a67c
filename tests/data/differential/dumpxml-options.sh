# All of them, as far as this virsh has them.
# virsh only
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --xpath //usage
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 --xpath //usage --wrap
VIRSH -q secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
