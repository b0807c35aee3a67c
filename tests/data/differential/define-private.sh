# private is a one-way door.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
echo "<secret private='yes'><uuid>4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='volume'><volume>/srv/disk</volume></usage></secret>" > p.xml
VIRSH secret-define p.xml
sed "s/ private='yes'//" p.xml > q.xml
VIRSH secret-define q.xml
sed "s/<secret/<secret private='yes'/" s.xml > r.xml
VIRSH secret-define r.xml
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-define s.xml
