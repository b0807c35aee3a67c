# One of each kind.
echo "<network/>" > root.xml
VIRSH secret-define root.xml
VIRSH secret-define --validate root.xml
echo "<secret ephemeral='1'/>" > ephemeral.xml
VIRSH secret-define ephemeral.xml
VIRSH secret-define --validate ephemeral.xml
echo "<secret private='YES'/>" > private.xml
VIRSH secret-define private.xml
VIRSH secret-define --validate private.xml
echo "<secret private='x' ephemeral='y'><uuid>z</uuid></secret>" > both.xml
VIRSH secret-define both.xml
VIRSH secret-define --validate both.xml
echo "<secret><uuid>nope</uuid></secret>" > uuid.xml
VIRSH secret-define uuid.xml
VIRSH secret-define --validate uuid.xml
echo "<secret><usage/></secret>" > no-type.xml
VIRSH secret-define no-type.xml
VIRSH secret-define --validate no-type.xml
echo "<secret><usage type=''/></secret>" > empty-type.xml
VIRSH secret-define empty-type.xml
VIRSH secret-define --validate empty-type.xml
echo "<secret><usage type='Ceph'/></secret>" > type.xml
VIRSH secret-define type.xml
VIRSH secret-define --validate type.xml
echo "<secret><usage type='volume'/></secret>" > volume.xml
VIRSH secret-define volume.xml
VIRSH secret-define --validate volume.xml
echo "<secret><usage type='ceph'><volume>x</volume></usage></secret>" > ceph.xml
VIRSH secret-define ceph.xml
VIRSH secret-define --validate ceph.xml
echo "<secret><usage type='iscsi'><target/></usage></secret>" > iscsi.xml
VIRSH secret-define iscsi.xml
VIRSH secret-define --validate iscsi.xml
echo "<secret><usage type='tls'/></secret>" > tls.xml
VIRSH secret-define tls.xml
VIRSH secret-define --validate tls.xml
echo "<secret><usage type='vtpm'/></secret>" > vtpm.xml
VIRSH secret-define vtpm.xml
VIRSH secret-define --validate vtpm.xml
echo "<secret>" > open.xml
VIRSH secret-define open.xml
VIRSH secret-define --validate open.xml
echo "secret" > text.xml
VIRSH secret-define text.xml
VIRSH secret-define --validate text.xml
echo "<secret><uuid></secret>" > mismatch.xml
VIRSH secret-define mismatch.xml
VIRSH secret-define --validate mismatch.xml
echo "<secret private='yes' private='yes'/>" > attribute.xml
VIRSH secret-define attribute.xml
VIRSH secret-define --validate attribute.xml
echo "<secret><description>&nope;</description></secret>" > entity.xml
VIRSH secret-define entity.xml
VIRSH secret-define --validate entity.xml
