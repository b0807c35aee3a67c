# A secret that is never on disk, and one that comes and goes there.
# our daemon only
echo "<secret ephemeral='yes'><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > e.xml
sed "s/'yes'/'no'/" e.xml > s.xml
sed "s/<secret/<secret private='yes'/; s/3f6b/4f6b/; s/one/two/" e.xml > p.xml
VIRSH secret-define e.xml
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-define p.xml
VIRSH secret-list
VIRSH secret-list --ephemeral
VIRSH secret-list --ephemeral --private
VIRSH secret-list --no-ephemeral
VIRSH secret-list --ephemeral --no-private
VIRSH secret-set-value 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
VIRSH secret-get-value 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-define s.xml
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-list --no-ephemeral
VIRSH secret-undefine 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-list
