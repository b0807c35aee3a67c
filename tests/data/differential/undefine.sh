# Removing, twice, and starting over.
# daemon only
echo "<secret><uuid>3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='ceph'><name>one</name></usage></secret>" > s.xml
VIRSH secret-define s.xml
echo "<secret private='yes'><uuid>4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234</uuid><usage type='volume'><volume>/srv/disk</volume></usage></secret>" > p.xml
VIRSH secret-define p.xml
VIRSH secret-set-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234 aGVs
VIRSH secret-undefine 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-undefine 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH -q secret-undefine --secret 4f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-undefine nope
VIRSH secret-list
VIRSH secret-define s.xml
VIRSH secret-get-value 3f6b2c1e-7a54-4d0b-9c1d-5e8f00aa1234
VIRSH secret-undefine 3F6B2C1E7A544D0B9C1D5E8F00AA1234
