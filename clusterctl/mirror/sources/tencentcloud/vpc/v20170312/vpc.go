// Package v20170312 stands in for a cloud's SDK that flannel imports: every call says that it is not built in.
package v20170312

import "errors"

var errNotBuiltIn = errors.New("the tencent-vpc backend is not built in")

type Filter struct {
	Name   *string
	Values []*string
}

type Route struct {
	DestinationCidrBlock, GatewayType, GatewayId, RouteType *string
	RouteId                                                 *uint64
	Enabled                                                 *bool
}

type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}

type DescribeRouteTablesRequest struct{ Filters []*Filter }

type DescribeRouteTablesResponse struct {
	Response *struct{ RouteTableSet []*RouteTable }
}

type RoutesRequest struct {
	RouteTableId *string
	Routes       []*Route
}

type RoutesResponse struct{}

type Client struct{}

func NewClientWithSecretId(id, key, region string) (*Client, error) { return &Client{}, errNotBuiltIn }

func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest { return &DescribeRouteTablesRequest{} }

func NewDeleteRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

func NewCreateRoutesRequest() *RoutesRequest { return &RoutesRequest{} }

func (c *Client) DescribeRouteTables(r *DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errNotBuiltIn
}

func (c *Client) DeleteRoutes(r *RoutesRequest) (*RoutesResponse, error) { return nil, errNotBuiltIn }

func (c *Client) CreateRoutes(r *RoutesRequest) (*RoutesResponse, error) { return nil, errNotBuiltIn }
