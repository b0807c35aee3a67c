# Every usage, and all that has to be escaped.
echo "<secret><uuid>0f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><description>&lt;a&gt; &amp; 'b' &quot;c&quot; é</description><usage type='none'><name>x</name></usage></secret>" > none.xml
VIRSH secret-define none.xml
VIRSH secret-define --validate none.xml
echo "<secret><uuid>1f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><description>&lt;a&gt; &amp; 'b' &quot;c&quot; é</description><usage type='volume'><volume>/srv/a &amp; b</volume></usage></secret>" > volume.xml
VIRSH secret-define volume.xml
VIRSH secret-define --validate volume.xml
echo "<secret><uuid>2f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><description>&lt;a&gt; &amp; 'b' &quot;c&quot; é</description><usage type='ceph'><name>client.a secret</name></usage></secret>" > ceph.xml
VIRSH secret-define ceph.xml
VIRSH secret-define --validate ceph.xml
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><description>&lt;a&gt; &amp; 'b' &quot;c&quot; é</description><usage type='iscsi'><target>iqn.2020-01.org:d</target></usage></secret>" > iscsi.xml
VIRSH secret-define iscsi.xml
VIRSH secret-define --validate iscsi.xml
echo "<secret><uuid>4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><description>&lt;a&gt; &amp; 'b' &quot;c&quot; é</description><usage type='tls'><name>TLS</name></usage></secret>" > tls.xml
VIRSH secret-define tls.xml
VIRSH secret-define --validate tls.xml
echo "<secret><uuid>5f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><description>&lt;a&gt; &amp; 'b' &quot;c&quot; é</description><usage type='vtpm'><name>vTPM</name></usage></secret>" > vtpm.xml
VIRSH secret-define vtpm.xml
VIRSH secret-define --validate vtpm.xml
VIRSH secret-list
VIRSH -q secret-list
VIRSH secret-dumpxml 0f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml 1f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml 2f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-dumpxml 5f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
