# Redefinition and uniqueness.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
sed s/one/two/ s.xml > t.xml
VIRSH secret-define t.xml
echo '<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid></secret>' > t.xml
VIRSH secret-define t.xml
sed s/3f6b/5f6b/ s.xml > t.xml
VIRSH secret-define t.xml
sed 's/ceph/tls/' s.xml > t.xml
VIRSH secret-define t.xml
VIRSH secret-list
sed "s|<usage|<description>text</description><usage|" t.xml > u.xml
VIRSH secret-define u.xml
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
echo '<secret><uuid>00000000-0000-0000-0000-000000000001</uuid></secret>' > n.xml
VIRSH secret-define n.xml
sed s/3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234/00000000-0000-0000-0000-000000000001/ s.xml > t.xml
VIRSH secret-define t.xml
