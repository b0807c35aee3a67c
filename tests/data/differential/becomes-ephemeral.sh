# A secret that leaves the disk, with its value.
# our daemon only
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
sed "s/<secret/<secret ephemeral='yes'/" s.xml > e.xml
VIRSH secret-define e.xml
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-list --ephemeral
