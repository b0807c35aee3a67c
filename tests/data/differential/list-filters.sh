# All 16. Ephemeral secrets are missing: our embedded keystore forgets them with the process.
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
echo "<secret private='yes'><uuid>4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='volume'><volume>/srv/disk</volume></usage></secret>" > p.xml
VIRSH secret-define p.xml
echo '<secret><uuid>00000000-0000-0000-0000-000000000001</uuid></secret>' > n.xml
VIRSH secret-define n.xml
VIRSH secret-list
VIRSH secret-list --ephemeral
VIRSH secret-list --no-ephemeral
VIRSH secret-list --ephemeral --no-ephemeral
VIRSH secret-list --private
VIRSH secret-list --ephemeral --private
VIRSH secret-list --no-ephemeral --private
VIRSH secret-list --ephemeral --no-ephemeral --private
VIRSH secret-list --no-private
VIRSH secret-list --ephemeral --no-private
VIRSH secret-list --no-ephemeral --no-private
VIRSH secret-list --ephemeral --no-ephemeral --no-private
VIRSH secret-list --private --no-private
VIRSH secret-list --ephemeral --private --no-private
VIRSH secret-list --no-ephemeral --private --no-private
VIRSH secret-list --ephemeral --no-ephemeral --private --no-private
